/**
 * The rounds of IKE_AUTH that carry EAP, as initiator (RFC 7296 §2.16): one request for each packet of the
 * method, and a last one with AUTH by the method's key.
 */
import type { Environment, Millis } from '../base/environment.ts'
import { Secret } from '../base/secret.ts'
import {
  EapPeer,
  type EapAnswer,
  type EapSettings,
  type EapStep,
} from '../identity/eap/eap-peer.ts'
import { find } from '../wire/message.ts'
import { findErrorNotify } from '../wire/notify.ts'
import type { Payload } from '../wire/payloads.ts'
import { ExchangeType, notifyName } from '../wire/registry.ts'
import type { AuthContext } from './auth-proof.ts'
import type { Built, Exchange, ExchangeContext } from './exchange.ts'

/** What becomes of the login; only one of `finish` and `fail` is called, once. */
export interface EapEnd {
  /** The last request: AUTH by the key. */
  prove(msk: Secret): readonly Payload[]
  /** The answer to it. The key is wiped afterwards. */
  finish(payloads: readonly Payload[], msk: Secret, now: Millis): void
  /** The words are for our own side. */
  fail(why: string, now: Millis): void
}

export class EapRounds implements Exchange {
  readonly type = ExchangeType.IkeAuth
  readonly subject = 'nothing'
  private readonly peer: EapPeer
  private readonly end: EapEnd
  private next: readonly Payload[] | undefined
  private msk: Secret | undefined

  constructor(settings: EapSettings, environment: Environment, end: EapEnd) {
    this.peer = new EapPeer(settings, environment)
    this.end = end
  }

  /** A packet of the responder's. */
  take(sa: AuthContext, packet: Uint8Array, now: Millis): void {
    this.follow(sa, this.peer.handle(packet), now)
  }

  private follow(sa: AuthContext, step: EapStep, now: Millis): void {
    switch (step.kind) {
      case 'respond':
        this.next = [{ kind: 'eap', data: step.packet }]
        return sa.enqueue(this, now)
      case 'external':
        return sa.ask(
          { kind: 'eap', conversation: this, request: step.request },
          (answer, later) =>
            this.follow(sa, this.peer.resume(answer as EapAnswer | undefined), later),
          now,
        )
      case 'success':
        this.msk = Secret.adopt(step.msk)
        this.next = this.end.prove(this.msk)
        return sa.enqueue(this, now)
      case 'failed':
        this.wipe()
        return this.end.fail(step.why, now)
      default:
        return step satisfies never
    }
  }

  build(): Built {
    return this.next
  }

  onResponse(context: ExchangeContext, payloads: readonly Payload[], now: Millis): void {
    if (this.msk !== undefined) {
      this.end.finish(payloads, this.msk, now)
      return this.wipe()
    }
    const eap = find(payloads, 'eap')
    if (eap !== undefined) return this.take(context as AuthContext, eap.data, now)
    this.wipe()
    const refusal = findErrorNotify(payloads)
    const why =
      refusal === undefined ? 'its answer lacks EAP' : `it refused EAP: ${notifyName(refusal.type)}`
    this.end.fail(why, now)
  }

  private wipe(): void {
    this.peer.wipe()
    this.msk?.wipe()
  }
}
