/** What a program can set of TCP, with the defaults and where they come from. Times are milliseconds. */
import type { Millis } from '../base/environment.ts'
import type { CongestionControl } from './congestion/choose.ts'

export interface TcpConfig {
  /** Maximum octets of a connection's send and receive buffers; both begin small and grow with use. */
  readonly sendBuffer: number
  readonly receiveBuffer: number
  /** Maximum connections of one peer to our ports; a further SYN is answered with RST. */
  readonly maxConnections: number
  /** Maximum octets buffered by all connections of a peer, apart from a small reserve for each that is read. */
  readonly maxBuffered: number
  readonly congestionControl: CongestionControl
  /** Segments of the first flight (RFC 6928). */
  readonly initialWindow: number
  readonly initialRto: Millis
  readonly minRto: Millis
  readonly maxRto: Millis
  /** Times a SYN and a data segment are sent again before giving up (RFC 9293 §3.8.3). */
  readonly synRetries: number
  readonly retries: number
  readonly delayedAck: Millis
  /** Segments with data, the first of a connection, that are acknowledged at once: its sender is in slow start. */
  readonly quickAcks: number
  /** How long the end that closed first remembers the connection. */
  readonly timeWait: Millis
  /** Whether a RST ends TIME-WAIT (RFC 9293 §3.10.7.4); false: it is ignored (RFC 1337 §3, F1). */
  readonly timeWaitResets: boolean
  /** How long a connection that its owner has let go waits for the peer's FIN. */
  readonly finWait: Millis
  /** How long such a connection keeps what it has to send while the peer acknowledges none of it. */
  readonly orphanTimeout: Millis
  /** How long data may stay unacknowledged before the connection ends (RFC 5482 §2); 0: while retries last. */
  readonly userTimeout: Millis
  readonly keepAliveDelay: Millis
  readonly keepAliveInterval: Millis
  readonly keepAliveCount: number
}

/** Ours: the receive buffer before the reader has read anything. */
export const FIRST_RECEIVE_BUFFER = 1 << 16
/** Ours: octets that may be queued beyond the congestion window. A usual write fits. */
export const FIRST_SEND_BUFFER = 1 << 18

export const DEFAULT_TCP_CONFIG: TcpConfig = Object.freeze({
  sendBuffer: 1 << 24,
  receiveBuffer: 1 << 24,
  maxConnections: Infinity,
  maxBuffered: Infinity,
  congestionControl: 'cubic',
  initialWindow: 10,
  initialRto: 1000,
  // DEVIATION RFC 6298 §2.4: one second is too slow for services; all common stacks take 200 ms.
  minRto: 200,
  maxRto: 60_000,
  synRetries: 6,
  retries: 15,
  delayedAck: 40,
  quickAcks: 16,
  // DEVIATION RFC 9293 §3.4.2: ESP's anti-replay keeps old duplicates away, so 2 MSL can be short.
  timeWait: 10_000,
  timeWaitResets: true,
  finWait: 60_000,
  orphanTimeout: 120_000,
  userTimeout: 0,
  keepAliveDelay: 7_200_000,
  keepAliveInterval: 1000,
  keepAliveCount: 10,
})
