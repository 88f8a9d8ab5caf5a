/** How long an SA lives, with jitter so that two ends do not rekey at the same moment by habit (RFC 7296 §2.8). */
import { randomFraction, type Environment, type Millis } from '../base/environment.ts'

/** Hard limits; `Infinity`: none. */
export interface LifetimePolicy {
  readonly time: Millis
  readonly octets: number
  readonly packets: number
}

export interface Lifetime {
  /** From its creation: when to rekey, and when it must be gone. */
  readonly softTime: Millis
  readonly hardTime: Millis
  readonly softOctets: number
  readonly hardOctets: number
  readonly softPackets: number
  readonly hardPackets: number
}

/** Soft limits are drawn between these shares of the hard ones. */
const SOFT_LEAST = 0.8
const SOFT_SPREAD = 0.1

export const drawLifetime = (policy: LifetimePolicy, environment: Environment): Lifetime => {
  const share = (hard: number): number =>
    hard === Infinity ? Infinity : hard * (SOFT_LEAST + SOFT_SPREAD * randomFraction(environment))
  return {
    softTime: share(policy.time),
    hardTime: policy.time,
    softOctets: share(policy.octets),
    hardOctets: policy.octets,
    softPackets: share(policy.packets),
    hardPackets: policy.packets,
  }
}
