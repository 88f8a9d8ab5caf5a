/**
 * All sessions of a core, with what is asked about all of them kept as counts, so that no such question walks
 * over them. What it knows of a session is renewed whenever something was done to that session.
 */
import { Line, type InLine } from '../base/line.ts'
import type { Session } from './session.ts'

/** What was true of a session when it was looked at last. */
class Entry implements InLine<Entry> {
  readonly session: Session
  connections = 0
  isOver = false
  hasUndelivered = false
  preceding: Entry | undefined
  following: Entry | undefined
  isInLine = false

  constructor(session: Session) {
    this.session = session
  }
}

export class SessionTable {
  private readonly entries = new Map<Session, Entry>()
  /** Of which it is not known whether everything they wrote has arrived. */
  private readonly unsure = new Line<Entry>()
  private undelivered = 0
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
    for (let entry = this.unsure.shift(); entry; entry = this.unsure.shift()) {
      this.noteUndelivered(entry, entry.session.hasUndelivered)
    }
    return this.undelivered > 0
  }

  private noteUndelivered(entry: Entry, hasUndelivered: boolean): void {
    if (hasUndelivered !== entry.hasUndelivered) this.undelivered += hasUndelivered ? 1 : -1
    entry.hasUndelivered = hasUndelivered
  }

  /** For commands to all of them. */
  [Symbol.iterator](): IterableIterator<Session> {
    return this.entries.keys()
  }

  add(session: Session): void {
    this.entries.set(session, new Entry(session))
    this.renew(session)
  }

  /** Something may have changed in it. */
  renew(session: Session): void {
    const entry = this.entries.get(session)
    if (entry === undefined) return
    this.unsure.add(entry)
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
    this.noteUndelivered(entry, false)
    this.unsure.delete(entry)
  }
}
