/** Sealing and opening of protected messages with one IKE SA's keys (RFC 7296 §3.14, RFC 5282, RFC 7383). */
import { putU32 } from '../base/bytes.ts'
import type { AeadBackends } from '../base/aead-backend.ts'
import type { Environment } from '../base/environment.ts'
import { release } from '../base/external.ts'
import type { Secret } from '../base/secret.ts'
import type { Aead } from '../crypto/aead.ts'
import { mixPpk, wipeIkeKeys, type IkeKeys } from '../crypto/key-material.ts'
import type { Backend, Prf } from '../crypto/prf.ts'
import { createAead, type CipherChoice } from '../crypto/suite.ts'
import {
  fragmentCapacity,
  layoutEncrypted,
  messageCapacity,
  type EncryptedLayout,
  type SealableMessage,
} from '../wire/encrypted.ts'
import type { HeaderFacts } from '../wire/ike-header.ts'
import type { WrittenChain } from '../wire/payload-chain.ts'

/** RFC 7383 §2.5 has 16 bits; ours is what no honest message needs. */
const MAX_FRAGMENTS = 64

export class Protection {
  private readonly environment: Environment
  private readonly outbound: Aead
  private readonly inbound: Aead
  private keys: IkeKeys
  /** Each sealed message or fragment takes the next number as its IV (RFC 5282 §3.1). */
  private sealed = 0

  constructor(
    environment: Environment,
    { backend, aead }: { readonly backend: Backend; readonly aead: AeadBackends },
    cipher: CipherChoice,
    keys: IkeKeys,
    originalInitiator: boolean,
  ) {
    this.environment = environment
    this.keys = keys
    const initiator = createAead(backend, cipher, keys.skEi.bytes, keys.skAi.bytes, aead)
    const responder = createAead(backend, cipher, keys.skEr.bytes, keys.skAr.bytes, aead)
    this.outbound = originalInitiator ? initiator : responder
    this.inbound = originalInitiator ? responder : initiator
  }

  /** One message, padded to `least` octets, or its fragments when it would exceed `limit` octets. */
  seal(facts: HeaderFacts, chain: WrittenChain, limit: number, least = 0): Uint8Array[] {
    const capacity = fragmentCapacity(limit, this.outbound)
    const whole = layoutEncrypted(facts, chain.first, chain.bytes, this.outbound, undefined, least)
    const total = Math.ceil(chain.bytes.length / capacity)
    if (whole.message.length <= limit || total > MAX_FRAGMENTS) return [this.finish(whole)]
    return Array.from({ length: total }, (_, i) => {
      const part = chain.bytes.subarray(i * capacity, (i + 1) * capacity)
      // RFC 7383 §2.5.1: only the first fragment says what the message begins with.
      const first = i === 0 ? chain.first : 0
      return this.finish(
        layoutEncrypted(facts, first, part, this.outbound, { number: i + 1, total }),
      )
    })
  }

  /** Octets of payloads in a message of so many octets that is not cut. */
  capacity(message: number): number {
    return messageCapacity(message, this.outbound)
  }

  private finish({ message, ivAt, from, to }: SealableMessage): Uint8Array {
    if (this.outbound.iv === 'random') this.environment.randomFill(message.subarray(ivAt, from))
    else putU32(message, from - 4, ++this.sealed)
    this.outbound.seal(message, from, to, message.subarray(0, ivAt))
    return message
  }

  /** The plaintext of a genuine message, in memory of its own; undefined for any other. */
  open(message: Uint8Array, layout: EncryptedLayout): Uint8Array | undefined {
    const aead = this.inbound
    const from = layout.aadEnd + aead.ivLength
    const to = layout.bodyTo - aead.icvLength
    if (to - from < 1 || (to - from) % aead.blockSize !== 0) return undefined
    const plaintext = aead.open(message, from, to, message.subarray(0, layout.aadEnd))
    if (plaintext === undefined) return undefined
    const padding = plaintext.at(-1)!
    const end = plaintext.length - 1 - padding
    const own = end < 0 ? undefined : new Uint8Array(plaintext.subarray(0, end))
    release(plaintext)
    return own
  }

  get skD(): IkeKeys['skD'] {
    return this.keys.skD
  }

  get skPi(): IkeKeys['skPi'] {
    return this.keys.skPi
  }

  get skPr(): IkeKeys['skPr'] {
    return this.keys.skPr
  }

  /** RFC 8784 §3: from here on Child SAs and rekeys depend on the post-quantum key too. */
  mixPpk(prf: Prf, ppk: Secret): void {
    const { skD } = this.keys
    this.keys = { ...this.keys, skD: mixPpk(prf, ppk, skD) }
    skD.wipe()
  }

  wipe(): void {
    this.outbound.wipe()
    this.inbound.wipe()
    wipeIkeKeys(this.keys)
  }
}
