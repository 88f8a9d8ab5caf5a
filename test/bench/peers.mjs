// What is compared: one way to connect for each name, all with the calls of `net`.
import { connect as netConnect, createServer as createNetServer } from 'node:net'
import { connect as tlsConnect, createServer as createTlsServer } from 'node:tls'
import { makeSecretStream } from './secret-stream.mjs'

/** The package as it is published, or its modules as they are written, in which a profile shows what is where. */
const { createSecureServer, createSecureSocket } = await import(
  process.env.BENCH_PACKAGE ?? 'ike-socket'
)

const psk = 'a pre-shared key for the benchmark'
const host = '127.0.0.1'

/** Options of IKE by name; what is not named is as by default. Of `-fast` ones the process finds `sodium-native`. */
const IKE = {
  ike: () => ({ psk }),
  'ike-fast': () => ({ psk, esp: 'chacha20poly1305' }),
  'ike-1400': () => ({ psk, mtu: 1400 }),
  'ike-1400-fast': () => ({ psk, mtu: 1400 }),
  'ike-ffi': () => ({ psk, accelerate: 'ffi' }),
  'ike-1400-ffi': () => ({ psk, mtu: 1400, accelerate: 'ffi' }),
  'ike-ecdsa': ({ cert, key }) => ({ cert, key, ca: cert }),
}

/** `pair`: certificate and key (ECDSA, P-256) as PEM, of both ends. `port`: of the server, known to clients. */
export const makePeer = (name, pair) => {
  const { cert, key } = pair
  const tls = {
    host,
    cert,
    key,
    ca: cert,
    requestCert: true,
    rejectUnauthorized: true,
    minVersion: 'TLSv1.3',
  }
  switch (name) {
    case 'net':
      return {
        listen: handler => createNetServer({ noDelay: true }, handler).listen(0, host),
        connect: ({ port }) => netConnect({ port, host, noDelay: true }),
        ready: 'connect',
      }
    case 'tls':
      return {
        listen: handler => createTlsServer({ ...tls, noDelay: true }, handler).listen(0, host),
        connect: ({ port }) => tlsConnect({ ...tls, port }).setNoDelay(true),
        ready: 'secureConnect',
      }
    case 'secret-stream':
      return makeSecretStream(process.env.BENCH_PACKAGES)
    default: {
      const options = { noDelay: true, ...IKE[name](pair) }
      return {
        listen: handler => createSecureServer({ ...options, ikePort: 0 }, handler).listen(0, host),
        connect: (place, more = {}) => createSecureSocket({ host, ...place, ...options, ...more }),
        ready: 'secureConnect',
      }
    }
  }
}

export const isIke = name => name in IKE

/** It needs packages that are installed for the benchmark alone. */
export const needsPackages = name => name === 'secret-stream' || name.endsWith('-fast')
