/** Questions to the application that are open, each with the IKE SA, or the handshake, that waits for the answer. */
import { addTo, removeFrom } from '../base/set-map.ts'
import type { HalfOpen } from '../ike/half-open.ts'
import type { IkeSa } from '../ike/ike-sa.ts'
import type { Session } from './session.ts'

interface Open {
  readonly sa: IkeSa | HalfOpen
  readonly session: Session
  /** The SA's own number for it. */
  readonly id: number
}

export class Questions {
  private readonly open = new Map<number, Open>()
  private readonly bySession = new Map<Session, Set<number>>()
  private next = 1

  get size(): number {
    return this.open.size
  }

  /** Returns the number under which the application answers. */
  add(question: Open): number {
    const number = this.next++
    this.open.set(number, question)
    addTo(this.bySession, question.session, number)
    return number
  }

  /** It is answered now; undefined: nobody waits for that any more. */
  take(number: number): Open | undefined {
    const question = this.open.get(number)
    if (question === undefined) return undefined
    this.open.delete(number)
    removeFrom(this.bySession, question.session, number)
    return question
  }

  /** Nothing is left of that session. */
  forget(session: Session): void {
    for (const number of this.bySession.get(session) ?? []) this.open.delete(number)
    this.bySession.delete(session)
  }
}
