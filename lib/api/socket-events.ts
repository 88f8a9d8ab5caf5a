/** The events of a socket with what their listeners get, so that the compiler knows them. */

/** What a listener of one event of a table is. */
export type Listener<Events, E extends keyof Events> = Events[E] extends unknown[]
  ? (...facts: Events[E]) => void
  : never

/** A listener of an event that is in no table. */
// eslint-disable-next-line @typescript-eslint/no-explicit-any -- a listener may take what it likes
export type AnyListener = (...facts: any[]) => void

export interface SecureSocketEvents {
  close: [hadError: boolean]
  connect: []
  connectionAttempt: [address: string, port: number, family: number]
  connectionAttemptFailed: [address: string, port: number, family: number, error: Error]
  connectionAttemptTimeout: [address: string, port: number, family: number]
  // net's types say Buffer also where `setEncoding` makes it text.
  // eslint-disable-next-line @typescript-eslint/no-explicit-any -- as in net's types
  data: [chunk: any]
  drain: []
  end: []
  error: [error: Error]
  finish: []
  lookup: [error: Error | null, address: string, family: number | string, host: string]
  ready: []
  secureConnect: []
  timeout: []
}
