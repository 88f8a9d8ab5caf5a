/**
 * All sessions of a core, with what is asked about all of them kept as counts, so that no such question walks
 * over them. What it knows of a session is renewed whenever something was done to that session.
 */
import type { Session } from './session.ts'

/** What was true of a session when it was looked at last. */
interface Entry {
  connections: number
  isOver: boolean
}

export class SessionTable {
  private readonly entries = new Map<Session, Entry>()
  /** Of which it is not known whether everything they wrote has arrived. */
  private readonly unsure = new Set<Session>()
  private readonly undelivered = new Set<Session>()
  private connections = 0
  private over = 0

  get size(): number {
    return this.entries.size
  }

  /** Connections of all sessions. */
  get connectionCount(): number {
    return this.connections
  }

  /** Every SA has ended; some may still repeat their last answer. */
  get isSettled(): boolean {
    return this.over === this.entries.size
  }

  /** An owner wrote something before it let go that has not arrived yet. */
  get hasUndelivered(): boolean {
    for (const session of this.unsure) {
      if (session.hasUndelivered) this.undelivered.add(session)
      else this.undelivered.delete(session)
    }
    this.unsure.clear()
    return this.undelivered.size > 0
  }

  /** For commands to all of them. */
  [Symbol.iterator](): IterableIterator<Session> {
    return this.entries.keys()
  }

  add(session: Session): void {
    this.entries.set(session, { connections: 0, isOver: false })
    this.renew(session)
  }

  /** Something may have changed in it. */
  renew(session: Session): void {
    const entry = this.entries.get(session)
    if (entry === undefined) return
    this.unsure.add(session)
    const { connectionCount, isOver } = session
    this.connections += connectionCount - entry.connections
    entry.connections = connectionCount
    if (isOver !== entry.isOver) this.over += isOver ? 1 : -1
    entry.isOver = isOver
  }

  delete(session: Session): void {
    const entry = this.entries.get(session)
    if (entry === undefined) return
    this.entries.delete(session)
    this.connections -= entry.connections
    if (entry.isOver) this.over--
    this.unsure.delete(session)
    this.undelivered.delete(session)
  }
}
