/** How large IP packets the interface behind an address takes, so that no system has to cut ours into fragments. */
import { readFileSync } from 'node:fs'
import { networkInterfaces } from 'node:os'

/** Where Linux tells it; Node does not. */
const folderOf = (name: string): string => `/sys/class/net/${name}/mtu`

/**
 * Octets. `address`: one of this host, as the system writes it; undefined: any of them, by the narrowest that other
 * hosts can reach. Undefined where the system does not tell.
 */
export const interfaceMtu = (address: string | undefined): number | undefined => {
  const now = performance.now()
  if (now - askedAt > FRESH) known.clear()
  if (known.has(address)) return known.get(address)
  if (known.size === 0) askedAt = now
  const mtu = smallest(address)
  known.set(address, mtu)
  return mtu
}

/** Ours: for so many milliseconds what the system said is told once more; each client's socket asks. */
const FRESH = 1000
const known = new Map<string | undefined, number | undefined>()
let askedAt = -Infinity

const smallest = (address: string | undefined): number | undefined => {
  const sizes = Object.entries(networkInterfaces())
    .filter(([, list = []]) =>
      list.some(entry => (address === undefined ? !entry.internal : entry.address === address)),
    )
    .map(([name]) => mtuOf(name))
  return sizes.length === 0 || sizes.includes(undefined)
    ? undefined
    : Math.min(...sizes.filter(size => size !== undefined))
}

const mtuOf = (name: string): number | undefined => {
  try {
    const mtu = Number(readFileSync(folderOf(name), 'latin1'))
    return Number.isInteger(mtu) && mtu > 0 ? mtu : undefined
  } catch {
    return undefined
  }
}
