/** Two connections made one: what comes from either goes to the other. */
import type { Duplex } from 'node:stream'

/** What happened, with its facts, for whoever reads standard error. */
export type Log = (event: string, facts: Readonly<Record<string, string | number>>) => void

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
