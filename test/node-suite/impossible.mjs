/** Which tests of Node's say nothing about us, and which a stream without a native handle cannot pass, and why. */

/** By name: they are about what is no TCP, or about the inside of Node. */
export const INAPPLICABLE = [
  // Local (IPC) sockets, descriptors and handles.
  /-path$|pipe-|long-path|fd0?$|listen-handle|server-listen-options$|parallel\/pingpong$|end-close$/,
  // The primary of a cluster owns the TCP port there.
  /cluster|exclusive-random|shared-ports|ipc-response|listen-twice/,
  // Functions below net, and what only they see.
  /normalize-args|perf_hooks|simultaneous-?accepts|persistent-nodelay|socket-constructor|socket-setnodelay/,
]

const HANDLE = 'it replaces, or looks into, `_handle`, which is null here'
const BOUNDARIES = 'it expects two writes as two reads; here they share a segment'
const TRANSFER = 'only handles of the system can be sent to another thread'
const BOUND = 'it listens on, or connects from, a TCP port that the system has bound'
const ONE_ADDRESS = 'it listens on several addresses; one UDP port here belongs to one of them'

export const IMPOSSIBLE = {
  'parallel/connect-keepalive': HANDLE,
  'parallel/connect-nodelay': HANDLE,
  'parallel/server-keepalive': HANDLE,
  'parallel/server-nodelay': HANDLE,
  'parallel/socket-write-after-close': HANDLE,
  'parallel/keepalive-interval-count': HANDLE,
  'parallel/persistent-ref-unref': HANDLE,
  'parallel/http-agent-uninitialized-with-handle': HANDLE,
  'parallel/http-client-immediate-error': HANDLE,
  'parallel/http-client-spurious-aborted': HANDLE,
  'parallel/http-client-timeout-on-connect': "it looks into the timer of Node's own socket",
  'async-hooks/http-agent-handle-reuse-parallel': "it counts the resources of Node's own sockets",
  'async-hooks/http-agent-handle-reuse-serial': "it counts the resources of Node's own sockets",
  'parallel/http-parser-lazy-loaded': 'it hands out parsers that only serve its own connections',
  'parallel/http-parser-timeout-reset': HANDLE,
  'sequential/http-regr-gh-2928': HANDLE,
  'sequential/http-keep-alive-large-write': "it looks into the timer of Node's own socket",
  'parallel/http-nodelay': "it looks at what Node's own net hands to itself",
  'parallel/http-dump-req-when-res-ends': BOUNDARIES,
  'parallel/http-pause-no-dump': BOUNDARIES,
  'parallel/http-odd-hex-write': BOUNDARIES,
  'parallel/http-agent-free-socket-data-guard':
    'http guards idle sockets by their `_handle`, which is null here',
  'parallel/http-writable-true-after-close':
    'it expects that an end overtakes an answer; here both share a datagram',
  'parallel/http-upgrade-server': 'it calls the constructor of http.Server on an object of its own',
  'parallel/http-pipeline-flood':
    'it kills a process, whose kernel would end its connections; here the peer is found dead later',
  'parallel/reuseport': ONE_ADDRESS,
  'parallel/boundsocket': BOUND,
  'parallel/server-transfer-worker': TRANSFER,
  'parallel/socket-transfer-worker': TRANSFER,
  'parallel/socket-transfer-worker-http': TRANSFER,
  'parallel/transfer-guards': TRANSFER,
  'sequential/server-address': ONE_ADDRESS,
  'sequential/server-bind': ONE_ADDRESS,
  'pummel/pingpong': ONE_ADDRESS,
}
