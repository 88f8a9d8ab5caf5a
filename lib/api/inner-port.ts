/** Ports inside ESP for those that did not ask for one by its number. */

export interface PortRange {
  readonly first: number
  readonly count: number
}

/** The port that `open` could take: `wanted`, or where that is 0 any of the range; undefined: none is free. */
export const openInnerPort = (
  wanted: number,
  { first, count }: PortRange,
  open: (port: number) => boolean,
): number | undefined => {
  if (wanted !== 0) return open(wanted) ? wanted : undefined
  for (let i = 0; i < count; i++) {
    const port = first + Math.floor(Math.random() * count)
    if (open(port)) return port
  }
  return undefined
}
