/**
 * The rounds of IKE_AUTH that carry EAP, as initiator (RFC 7296 §2.16): one request for each packet of the
 * method, and a last one with AUTH by the method's key.
 */
import type { Environment, Millis } from '../base/environment.ts'
import { Secret } from '../base/secret.ts'
import { EapPeer, type EapSettings, type EapStep } from '../identity/eap/eap-peer.ts'
import { find } from '../wire/message.ts'
import { findErrorNotify } from '../wire/notify.ts'
import type { Payload } from '../wire/payloads.ts'
import { notifyName } from '../wire/registry.ts'
import { ask, type Next, type Outcome } from './auth-steps.ts'

/** What becomes of the login. */
export interface EapEnd {
  /** The last request: AUTH by the key. */
  prove(msk: Secret): readonly Payload[]
  /** The answer to it. The key is wiped afterwards. */
  finish(payloads: readonly Payload[], msk: Secret, now: Millis): Outcome
  /** The words are for our own side. */
  fail(why: string, now: Millis): Outcome
}

export class EapRounds {
  private readonly peer: EapPeer
  private readonly end: EapEnd

  constructor(settings: EapSettings, environment: Environment, end: EapEnd) {
    this.peer = new EapPeer(settings, environment)
    this.end = end
  }

  /** A packet of the responder's. */
  take(packet: Uint8Array, now: Millis): Outcome {
    return this.follow(this.peer.handle(packet), now)
  }

  private follow(step: EapStep, now: Millis): Outcome {
    switch (step.kind) {
      case 'respond':
        return {
          kind: 'request',
          payloads: [{ kind: 'eap', data: step.packet }],
          next: this.onResponse,
        }
      case 'external':
        return ask({ kind: 'eap', conversation: this, request: step.request }, ({ eap }, later) =>
          this.follow(this.peer.resume(eap), later),
        )
      case 'success': {
        const msk = Secret.adopt(step.msk)
        const finish: Next<readonly Payload[]> = (payloads, later) => {
          const outcome = this.end.finish(payloads, msk, later)
          this.peer.wipe()
          msk.wipe()
          return outcome
        }
        return { kind: 'request', payloads: this.end.prove(msk), next: finish }
      }
      case 'failed':
        return this.fail(step.why, now)
      default:
        return step satisfies never
    }
  }

  private readonly onResponse: Next<readonly Payload[]> = (payloads, now) => {
    const eap = find(payloads, 'eap')
    if (eap !== undefined) return this.take(eap.data, now)
    const refusal = findErrorNotify(payloads)
    const why =
      refusal === undefined ? 'its answer lacks EAP' : `it refused EAP: ${notifyName(refusal.type)}`
    return this.fail(why, now)
  }

  private fail(why: string, now: Millis): Outcome {
    this.peer.wipe()
    return this.end.fail(why, now)
  }
}
