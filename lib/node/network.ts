/**
 * The network under this process, as far as the system tells: which addresses it has, when they change, and
 * which of them a datagram to somewhere would have. Nothing in Node tells of a change, so it is looked for.
 */
import { createSocket } from 'node:dgram'
import os from 'node:os'

export interface Network {
  /** Calls back when an address came or went, and at each look while `isLost()`; returns what ends that. */
  watch(watcher: NetworkWatcher): () => void
  /** Looks now, unless that was done a moment ago. */
  check(): void
  /** Those by which other hosts can reach this one. */
  readonly addresses: readonly string[]
  /** This host has that address, written as the system writes it. */
  has(address: string): boolean
  /** The address that a datagram to there would come from; undefined: there is no way. */
  sourceTowards(address: string, port: number, done: (source: string | undefined) => void): void
}

export interface NetworkWatcher {
  onChange(): void
  /** Looks are worth it although no address has changed: a route may have. */
  readonly isLost: boolean
}

/** Ours: how often the addresses are looked at. */
const INTERVAL = 2000
/** Ours: the minimum interval, however many callers ask. */
const LEAST_INTERVAL = 200

class SystemNetwork implements Network {
  private readonly watchers = new Set<NetworkWatcher>()
  private timer: NodeJS.Timeout | undefined
  private known: ReadonlySet<string> = new Set()
  private lookedAt = -Infinity

  watch(watcher: NetworkWatcher): () => void {
    this.watchers.add(watcher)
    if (this.timer === undefined) {
      this.known = ownAddresses()
      this.timer = setInterval(() => this.look(), INTERVAL)
      this.timer.unref()
    }
    return () => {
      this.watchers.delete(watcher)
      if (this.watchers.size > 0) return
      clearInterval(this.timer)
      this.timer = undefined
    }
  }

  check(): void {
    if (performance.now() - this.lookedAt >= LEAST_INTERVAL) this.look()
  }

  private look(): void {
    this.lookedAt = performance.now()
    const before = this.known
    const addresses = ownAddresses()
    this.known = addresses
    const isSame =
      addresses.size === before.size && [...addresses].every(address => before.has(address))
    for (const watcher of [...this.watchers]) {
      if (!isSame || watcher.isLost) watcher.onChange()
    }
  }

  get addresses(): readonly string[] {
    return Object.values(os.networkInterfaces()).flatMap(
      list =>
        list
          ?.filter(({ internal, address }) => !internal && !address.startsWith('fe80:'))
          .map(({ address }) => address) ?? [],
    )
  }

  has(address: string): boolean {
    return ownAddresses().has(address.split('%')[0]!)
  }

  sourceTowards(address: string, port: number, done: (source: string | undefined) => void): void {
    const family = address.includes(':') ? 6 : 4
    const socket = createSocket({
      type: family === 4 ? 'udp4' : 'udp6',
      // Addresses are literal here.
      lookup: (literal, _options, callback) => callback(null, literal, family),
    })
    const finish = (source: string | undefined): void => {
      socket.close()
      done(source)
    }
    socket.unref()
    // Connecting chooses the route and sends nothing.
    socket.connect(port, address, (error?: Error) =>
      finish(error === undefined || error === null ? socket.address().address : undefined),
    )
  }
}

/** Of interfaces that are up; the loopback always is. */
const ownAddresses = (): ReadonlySet<string> =>
  new Set(
    Object.values(os.networkInterfaces()).flatMap(
      addresses => addresses?.map(({ address }) => address) ?? [],
    ),
  )

export const systemNetwork: Network = new SystemNetwork()
