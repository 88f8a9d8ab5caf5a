/** Two connections made one: what comes from either goes to the other. */
import type { Duplex } from 'node:stream'

/** What happened, with its facts, for the reader of standard error. */
export type Log = (event: string, facts: Readonly<Record<string, string | number>>) => void

/** A stream of either kind, with what it has counted. */
interface Counted extends Duplex {
  readonly bytesRead: number
  readonly bytesWritten: number
}

/**
 * Tells every `interval` milliseconds how far a connection has come, while octets move, and its sums at the end if it was
 * told of before. 0: never.
 */
export const tellProgress = <Socket extends Counted>(
  socket: Socket,
  log: Log,
  facts: Readonly<Record<string, string | number>>,
  interval: number,
): Socket => {
  if (interval === 0) return socket
  const began = performance.now()
  let known = 0
  const tell = (event: string): void => {
    const { bytesRead: received, bytesWritten: sent } = socket
    known = received + sent
    const seconds = Math.round((performance.now() - began) / 1000)
    log(event, { ...facts, received, sent, seconds })
  }
  const timer = setInterval(() => {
    if (socket.bytesRead + socket.bytesWritten !== known) tell('progress')
  }, interval)
  timer.unref()
  socket.once('close', () => {
    clearInterval(timer)
    if (known > 0) tell('transferred')
  })
  return socket
}

/** Each end of one becomes the end of the other; what breaks one breaks both. */
export const join = (
  one: Duplex,
  open: () => Duplex,
  log: Log,
  facts: Readonly<Record<string, string | number>>,
): void => {
  const broken = (error: unknown): void =>
    log('failed', { ...facts, error: error instanceof Error ? error.message : String(error) })
  let other: Duplex
  try {
    other = open()
  } catch (error) {
    broken(error)
    return void one.destroy()
  }
  for (const [from, to] of [
    [one, other],
    [other, one],
  ] as const) {
    from.on('error', error => {
      broken(error)
      to.destroy()
    })
    from.on('close', () => {
      if (!from.readableEnded) to.destroy()
    })
    from.pipe(to)
  }
}
