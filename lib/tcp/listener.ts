/** Ports that accept connections. One table serves all stacks of an endpoint. */

export interface TcpListener {
  readonly port: number
  /** Connections that may be half open at once, over all peers. */
  readonly backlog: number
  halfOpen: number
  isOpen: boolean
}

/** Ours: a peer may have so many SYNs unanswered, so that it cannot take the backlog from all others. */
export const HALF_OPEN_PER_PEER = 128

export class TcpListeners {
  private readonly ports = new Map<number, TcpListener>()

  /** Undefined when the port is taken. */
  listen(port: number, backlog: number): TcpListener | undefined {
    if (this.ports.has(port)) return undefined
    const listener = { port, backlog, halfOpen: 0, isOpen: true }
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
