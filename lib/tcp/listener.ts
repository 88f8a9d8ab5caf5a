/** Ports that accept connections. One table serves all stacks of an endpoint. */
import { FirstOctets } from './first-octets.ts'

/** Who has connections half open at a listener: the stack of one peer. */
export interface HalfOpenHolder {
  /** Gives up the one of them that has waited longest. */
  dropOldest(listener: TcpListener): void
}

/**
 * Ours: SYNs of one peer that are not confirmed yet. Each keeps some 5 KiB, and a pool that opens all its sockets in one
 * tick has as many as sockets. */
export const HALF_OPEN_PER_PEER = 4096
/** Ours: of all peers, unless the backlog is larger. What is confirmed is taken at once and does not wait in a backlog. */
const HALF_OPEN = 8192

export class TcpListener {
  readonly port: number
  /** Connections that may be half open at once, over all peers. */
  readonly limit: number
  halfOpen = 0
  isOpen = true
  /** Whether connections of that peer are taken; to others the port looks closed. */
  readonly admits: (holder: HalfOpenHolder) => boolean
  private readonly shares = new Map<HalfOpenHolder, number>()
  /** The same the other way round: those who have one, two and so on; the last is not empty. */
  private readonly holders: Set<HalfOpenHolder>[] = []

  constructor(port: number, backlog: number, admits: (holder: HalfOpenHolder) => boolean) {
    this.port = port
    this.admits = admits
    this.limit = Math.max(backlog, HALF_OPEN)
  }

  /**
   * Makes room for one more. Where there is none, the peer that holds the most loses its oldest to one that
   * has fewer (RFC 4987 §3.2).
   */
  enter(holder: HalfOpenHolder): boolean {
    const own = this.shares.get(holder) ?? 0
    if (this.halfOpen >= this.limit) {
      const most = this.holders.length
      if (most <= own + 1) return false
      const [greediest] = this.holders[most - 1]!
      greediest!.dropOldest(this)
      if (this.halfOpen >= this.limit) return false
    }
    this.move(holder, own, own + 1)
    this.halfOpen++
    return true
  }

  leave(holder: HalfOpenHolder): void {
    const own = this.shares.get(holder) ?? 0
    this.move(holder, own, own - 1)
    this.halfOpen--
  }

  private move(holder: HalfOpenHolder, from: number, to: number): void {
    const { holders, shares } = this
    if (from > 0) holders[from - 1]!.delete(holder)
    if (to > 0) {
      holders[to - 1] ??= new Set()
      holders[to - 1]!.add(holder)
      shares.set(holder, to)
    } else shares.delete(holder)
    while (holders.at(-1)?.size === 0) holders.pop()
  }
}

export class TcpListeners {
  readonly firstOctets = new FirstOctets()
  private readonly ports = new Map<number, TcpListener>()

  /** Undefined when the port is taken. */
  listen(
    port: number,
    backlog: number,
    admits: (holder: HalfOpenHolder) => boolean = () => true,
  ): TcpListener | undefined {
    if (this.ports.has(port)) return undefined
    const listener = new TcpListener(port, backlog, admits)
    this.ports.set(port, listener)
    return listener
  }

  close(listener: TcpListener): void {
    listener.isOpen = false
    if (this.ports.get(listener.port) === listener) this.ports.delete(listener.port)
  }

  at(port: number): TcpListener | undefined {
    return this.ports.get(port)
  }

  get isEmpty(): boolean {
    return this.ports.size === 0
  }
}
