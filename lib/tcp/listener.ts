/** Ports that accept connections. One table serves all stacks of an endpoint. */

/** Who has connections half open at a listener: the stack of one peer. */
export interface HalfOpenHolder {
  /** Gives up the one of them that has waited longest. */
  dropOldest(listener: TcpListener): void
}

/** Ours: a peer may have so many SYNs unanswered, so that it cannot take the backlog from all others. */
export const HALF_OPEN_PER_PEER = 128

export class TcpListener {
  readonly port: number
  /** Connections that may be half open at once, over all peers. */
  readonly backlog: number
  halfOpen = 0
  isOpen = true
  private readonly shares = new Map<HalfOpenHolder, number>()

  constructor(port: number, backlog: number) {
    this.port = port
    this.backlog = backlog
  }

  /**
   * A place for one more. Where none is left, whoever holds the most gives its oldest up for a holder that
   * has fewer (RFC 4987 §3.2).
   */
  enter(holder: HalfOpenHolder): boolean {
    const own = this.shares.get(holder) ?? 0
    if (this.halfOpen >= this.backlog) {
      const [greediest, most] = this.greediest()
      if (greediest === undefined || most <= own + 1) return false
      greediest.dropOldest(this)
      if (this.halfOpen >= this.backlog) return false
    }
    this.shares.set(holder, own + 1)
    this.halfOpen++
    return true
  }

  leave(holder: HalfOpenHolder): void {
    const own = this.shares.get(holder) ?? 0
    if (own > 1) this.shares.set(holder, own - 1)
    else this.shares.delete(holder)
    this.halfOpen--
  }

  /** There are no more holders than the backlog has places. */
  private greediest(): [HalfOpenHolder | undefined, number] {
    let greediest: HalfOpenHolder | undefined
    let most = 0
    for (const [holder, share] of this.shares) {
      if (share <= most) continue
      greediest = holder
      most = share
    }
    return [greediest, most]
  }
}

export class TcpListeners {
  private readonly ports = new Map<number, TcpListener>()

  /** Undefined when the port is taken. */
  listen(port: number, backlog: number): TcpListener | undefined {
    if (this.ports.has(port)) return undefined
    const listener = new TcpListener(port, backlog)
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
}
