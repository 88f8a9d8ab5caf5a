/** Diagnostics: net's own channels, which monitoring tools already listen to, and NODE_DEBUG=ike-socket. */
import { channel, tracingChannel } from 'node:diagnostics_channel'
import { debuglog } from 'node:util'
import type { KeyLogEntry, TraceEvent, Tracer } from '../base/trace.ts'
import { captureOfProcess } from '../node/capture.ts'
import { writeKeyLog } from '../node/key-log.ts'

export const channels = {
  clientSocket: channel('net.client.socket'),
  serverSocket: channel('net.server.socket'),
  serverListen: tracingChannel<{ server: unknown; options?: unknown; error?: unknown }>(
    'net.server.listen',
  ),
  /** Every `TraceEvent`: exchanges by name, refusals with their reasons. */
  trace: channel('ike-socket:trace'),
}

/** A folder for Wireshark's tables, or a function that gets the keys. */
export type KeyLog = string | ((entry: KeyLogEntry) => void)

const log = debuglog('ike-socket')
let warned = false

/** Publishes to the channel and to NODE_DEBUG; free when nobody listens. */
export const makeTracer = (keyLog: KeyLog | undefined): Tracer => ({
  get enabled() {
    return channels.trace.hasSubscribers || log.enabled
  },
  emit(event: TraceEvent) {
    if (channels.trace.hasSubscribers) channels.trace.publish(event)
    if (log.enabled) log('%s %j', event.name, event.facts)
  },
  keyLog: both(captureOfProcess()?.key, keyLog === undefined ? undefined : takeKeys(keyLog)),
})

type TakeKey = NonNullable<Tracer['keyLog']>

const both = (one: TakeKey | undefined, two: TakeKey | undefined): TakeKey | undefined =>
  one === undefined || two === undefined
    ? (one ?? two)
    : entry => {
        one(entry)
        two(entry)
      }

const takeKeys = (keyLog: KeyLog): ((entry: KeyLogEntry) => void) => {
  if (!warned) {
    warned = true
    process.emitWarning(
      'THE KEYS OF ALL SAs ARE GIVEN OUT (option keyLog): anyone who has them can read everything that is sent',
      { code: 'IKE_KEY_LOG' },
    )
  }
  if (typeof keyLog === 'string') return writeKeyLog(keyLog)
  return entry => {
    try {
      keyLog(entry)
    } catch (error) {
      // As diagnostics_channel does: an observer's mistake does not stop what it observes.
      process.nextTick(() => {
        throw error
      })
    }
  }
}
