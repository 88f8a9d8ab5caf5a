/** Both directions of a Child SA: keys, counters and limits. What it was negotiated for is IKE's to know. */
import type { AeadBackends } from '../base/aead-backend.ts'
import type { Environment } from '../base/environment.ts'
import type { DirectionKeys } from '../crypto/key-material.ts'
import type { Backend } from '../crypto/prf.ts'
import { createAead, type CipherChoice } from '../crypto/suite.ts'
import { espCapacity } from '../wire/esp.ts'
import { InboundSa } from './inbound-sa.ts'
import { OutboundSa } from './outbound-sa.ts'

/** How much an SA may carry; the clock is IKE's business. */
export interface VolumeLimits {
  readonly softOctets: number
  readonly hardOctets: number
  readonly softPackets: number
  readonly hardPackets: number
}

export interface EspSaFacts {
  readonly spiIn: number
  readonly spiOut: number
  readonly esn: boolean
  readonly replayWindow: number
  readonly cipher: CipherChoice
  readonly inboundKeys: DirectionKeys
  readonly outboundKeys: DirectionKeys
  readonly backend: Backend
  readonly aead: AeadBackends
  readonly environment: Environment
  readonly limits: VolumeLimits
}

export class EspSaPair {
  readonly inbound: InboundSa
  readonly outbound: OutboundSa
  /** False until the peer has shown that it can receive on it (IKE decides). */
  outboundReady = false
  private readonly limits: VolumeLimits

  /** Takes the keys over: they are wiped here once the ciphers hold them. */
  constructor(facts: EspSaFacts) {
    const { inboundKeys, outboundKeys, esn } = facts
    const aead = ({ encryption, integrity }: DirectionKeys): ReturnType<typeof createAead> =>
      createAead(facts.backend, facts.cipher, encryption.bytes, integrity.bytes, facts.aead)
    this.inbound = new InboundSa(facts.spiIn, aead(inboundKeys), esn, facts.replayWindow)
    this.outbound = new OutboundSa(facts.spiOut, aead(outboundKeys), esn, facts.environment)
    this.limits = facts.limits
    for (const keys of [inboundKeys, outboundKeys]) {
      keys.encryption.wipe()
      keys.integrity.wipe()
    }
  }

  /** The busier direction counts: each has a key of its own. */
  lifetimeState(): 'ok' | 'soft' | 'hard' {
    const octets = Math.max(this.inbound.octets, this.outbound.octets)
    const packets = Math.max(this.inbound.packets, this.outbound.packets)
    const { limits } = this
    if (octets >= limits.hardOctets || packets >= limits.hardPackets) return 'hard'
    return octets >= limits.softOctets || packets >= limits.softPackets ? 'soft' : 'ok'
  }

  /** The greatest payload whose ESP packet fits `datagramOctets`. */
  payloadLimit(datagramOctets: number): number {
    return espCapacity(datagramOctets, this.outbound.cipher)
  }

  /** Nothing is to be done now, and there will be another packet soon, each way. */
  prepare(): void {
    this.outbound.prepare()
    this.inbound.prepare()
  }

  forget(): void {
    this.outbound.cipher.forget?.()
    this.inbound.cipher.forget?.()
  }

  wipe(): void {
    this.inbound.wipe()
    this.outbound.wipe()
  }
}
