/**
 * IKE_AUTH goes in steps, which are functions: what a step gives is what the next one gives, or payloads to
 * send, or a question to the application, whose answer is the next step's. Nothing waits within a step.
 */
import type { Millis } from '../base/environment.ts'
import type { Secret } from '../base/secret.ts'
import type { Ppk } from '../identity/ppk.ts'
import type { PeerPolicy } from '../policy/options.ts'
import type { Payload } from '../wire/payloads.ts'
import { ExchangeType } from '../wire/registry.ts'
import type { Answer, Exchange, ExchangeContext, PeerFacts, Question } from './exchange.ts'
import type { Handshake } from './sa-init.ts'

/** What IKE_AUTH needs of its SA beyond any exchange. */
export interface AuthContext extends ExchangeContext {
  readonly handshake: Handshake
  readonly skPi: Secret
  readonly skPr: Secret
  /** Goes on with IKE_AUTH from here. */
  follow(outcome: Outcome, now: Millis): void
  /** The peer is the one that it says it is: no other answer to our first request is its own (§2.4). */
  notePeerProven(): void
  /** Mixes the key into SK_d: the peer has shown that it has it (RFC 8784 §3). */
  usePpk(ppk: Ppk): void
  /** The application's own policy for this peer. */
  adoptPolicy(policy: PeerPolicy): void
  /** `replaces`: the peer's proofs that it authenticates an older SA again. */
  establish(peer: PeerFacts, now: Millis, replaces?: readonly Uint8Array[]): void
}

/** The step that follows when something has been found out. */
export type Next<T> = (result: T, now: Millis) => Outcome

export type Outcome =
  | { readonly kind: 'ask'; readonly question: Question; readonly next: Next<Answer> }
  /** A responder's answer, and what it asks the peer next. */
  | {
      readonly kind: 'answer'
      readonly payloads: readonly Payload[]
      readonly then?: Exchange | undefined
    }
  /** An initiator's request, and what follows from the response. */
  | {
      readonly kind: 'request'
      readonly payloads: readonly Payload[]
      readonly next: Next<readonly Payload[]>
    }
  /** The SA stands, or has ended. */
  | { readonly kind: 'done' }

export const DONE: Outcome = { kind: 'done' }

export const ask = (question: Question, next: Next<Answer>): Outcome => ({
  kind: 'ask',
  question,
  next,
})

/** One request of IKE_AUTH; there are several when EAP needs them. */
export class AuthRequest implements Exchange {
  readonly type = ExchangeType.IkeAuth
  readonly subject = 'nothing'
  private readonly sa: AuthContext
  private readonly request: Outcome & { kind: 'request' }

  constructor(sa: AuthContext, request: Outcome & { kind: 'request' }) {
    this.sa = sa
    this.request = request
  }

  build(): readonly Payload[] {
    return this.request.payloads
  }

  onResponse(_sa: ExchangeContext, payloads: readonly Payload[], now: Millis): void {
    this.sa.follow(this.request.next(payloads, now), now)
  }
}
