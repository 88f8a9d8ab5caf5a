/**
 * The sessions that are up, by principal, and who may have one more. While places are scarce no principal gets more
 * of them than it leaves to others, and a session that nobody uses makes room for a peer that comes.
 */
import type { Millis } from '../base/environment.ts'

export interface SessionLimits {
  /** Sessions of a server at once. Default 10,000. */
  readonly maxSessions: number
  /** Of them, those of one identity with one proof; 0, the default: no limit of their own. */
  readonly maxSessionsPerIdentity: number
}

/** Ours: of so many that were idle longest the one goes whose principal has most. */
const CANDIDATES = 16
/** Ours: a session that is idle for less than this may be about to be used. */
const YOUNG: Millis = 10_000
/** Ours: so many may be on their way out to make room; a peer that is gone holds its place until we know that. */
const MAX_LEAVING = 64

/** What one principal has. */
interface Holder<Session> {
  readonly all: Set<Session>
  readonly idle: Set<Session>
}

/** The answer to a peer that wants one more session. */
export type Place<Session> =
  | { readonly kind: 'free' }
  /** It may come when that idle session of somebody goes. */
  | { readonly kind: 'instead'; readonly of: Session }
  | { readonly kind: 'none' }

export class Roster<Session> {
  private readonly keys = new Map<Session, string>()
  private readonly holders = new Map<string, Holder<Session>>()
  /** Since when, the longest first. */
  private readonly idle = new Map<Session, Millis>()
  private readonly leaving = new Set<Session>()

  get size(): number {
    return this.keys.size
  }

  /** The sessions of that principal, the oldest first. */
  of(key: string): ReadonlySet<Session> {
    return this.holders.get(key)?.all ?? new Set()
  }

  add(session: Session, key: string): void {
    this.keys.set(session, key)
    const holder = this.holders.get(key)
    if (holder === undefined)
      this.holders.set(key, { all: new Set([session]), idle: new Set<Session>() })
    else holder.all.add(session)
  }

  delete(session: Session): void {
    const key = this.keys.get(session)
    if (key === undefined) return
    this.noteUse(session, true, 0)
    this.keys.delete(session)
    this.leaving.delete(session)
    const holder = this.holders.get(key)!
    holder.all.delete(session)
    if (holder.all.size === 0) this.holders.delete(key)
  }

  /** Whether connections run over it now; others than those that are up are passed over. */
  noteUse(session: Session, isUsed: boolean, now: Millis): void {
    const key = this.keys.get(session)
    if (key === undefined || isUsed !== this.idle.has(session)) return
    const { idle } = this.holders.get(key)!
    if (isUsed) {
      this.idle.delete(session)
      idle.delete(session)
    } else {
      this.idle.set(session, now)
      idle.add(session)
    }
  }

  /** The place for one more session of that principal. */
  place(key: string, limits: SessionLimits, now: Millis): Place<Session> {
    const { maxSessions, maxSessionsPerIdentity } = limits
    const held = this.of(key).size
    if (maxSessionsPerIdentity > 0 && held >= maxSessionsPerIdentity) return this.ownPlace(key, now)
    // A principal, however many sessions it opens, leaves as many places as it has to others.
    return maxSessions - this.size > held ? { kind: 'free' } : this.otherPlace(key, held, now)
  }

  /** That session goes to make room. */
  noteLeaving(session: Session): void {
    this.noteUse(session, true, 0)
    this.leaving.add(session)
  }

  private mayGo(session: Session | undefined, now: Millis): session is Session {
    if (session === undefined || this.leaving.size >= MAX_LEAVING) return false
    return (this.idle.get(session) ?? Infinity) <= now - YOUNG
  }

  private ownPlace(key: string, now: Millis): Place<Session> {
    const [oldest] = this.holders.get(key)?.idle ?? []
    return this.mayGo(oldest, now) ? { kind: 'instead', of: oldest } : { kind: 'none' }
  }

  /** Somebody who has more than the newcomer gives one up. */
  private otherPlace(key: string, held: number, now: Millis): Place<Session> {
    let [worst, most]: [Session | undefined, number] = [undefined, held]
    let left = CANDIDATES
    for (const session of this.idle.keys()) {
      if (left-- === 0 || !this.mayGo(session, now)) break
      const count = this.of(this.keys.get(session)!).size
      if (count > most) [worst, most] = [session, count]
    }
    return worst === undefined ? this.ownPlace(key, now) : { kind: 'instead', of: worst }
  }
}
