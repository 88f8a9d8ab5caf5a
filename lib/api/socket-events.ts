/** The events of a socket with what their listeners get, so that the compiler knows them. */
import type { Session } from './session.ts'

/** What a listener of one event of a table is. */
export type Listener<Events, E extends keyof Events> = Events[E] extends unknown[]
  ? (...facts: Events[E]) => void
  : never

/** A listener of an event that is in no table. */
// oxlint-disable-next-line typescript/no-explicit-any -- a listener may take what it likes
export type AnyListener = (...facts: any[]) => void

/** Events of a socket, with the arguments of their listeners. */
export interface SecureSocketEvents {
  /** The socket is closed. */
  close: [hadError: boolean]
  /** The connection is open. */
  connect: []
  /** An address of the peer is being tried. */
  connectionAttempt: [address: string, port: number, family: number]
  /** An address of the peer failed. */
  connectionAttemptFailed: [address: string, port: number, family: number, error: Error]
  /** An address of the peer was silent for too long. */
  connectionAttemptTimeout: [address: string, port: number, family: number]
  /** Octets of the stream; text after `setEncoding`. */
  // net's types say Buffer also where `setEncoding` makes it text.
  // oxlint-disable-next-line typescript/no-explicit-any -- as in net's types
  data: [chunk: any]
  /** After `write` returned `false`: write again. */
  drain: []
  /** The peer has ended its side. */
  end: []
  /** The connection, or the attempt to open it, has failed; 'close' follows. */
  error: [error: Error]
  /** Our side has ended, and everything written is with TCP. */
  finish: []
  /** A name was looked up. */
  lookup: [error: Error | null, address: string, family: number | string, host: string]
  /** Follows 'connect'. */
  ready: []
  /** Follows 'connect', under the name that `tls` uses. */
  secureConnect: []
  /** The SAs are up that the connection goes over; the handshake of TCP inside them follows. */
  session: [session: Session]
  /** The time of `setTimeout` has passed without traffic. */
  timeout: []
}
