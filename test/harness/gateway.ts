/** A gateway that a test scripts message by message: it has done the key exchange and can prove what it is told to. */
import { sign } from 'node:crypto'
import { concat } from '../../lib/base/bytes.ts'
import type { Secret } from '../../lib/base/secret.ts'
import { createKeyExchange } from '../../lib/crypto/key-exchange.ts'
import { computeSkeyseed, deriveIkeKeys } from '../../lib/crypto/key-material.ts'
import { createPrf } from '../../lib/crypto/prf.ts'
import { SIGNATURE_ALGORITHMS } from '../../lib/crypto/signature.ts'
import { sharedKeyAuth, signedOctets } from '../../lib/identity/auth.ts'
import type { Identity } from '../../lib/identity/identity.ts'
import { readIkeHeader } from '../../lib/wire/ike-header.ts'
import { writeMessage } from '../../lib/wire/message.ts'
import { notify } from '../../lib/wire/notify.ts'
import { isChainError, readChain } from '../../lib/wire/payload-chain.ts'
import type { Payload } from '../../lib/wire/payloads.ts'
import { CertEncoding, ExchangeType, NotifyType } from '../../lib/wire/registry.ts'
import { datagramOf, KeyRing, messageOf, readPayloads } from './attacker.ts'
import type { Credential } from './certificates.ts'
import { seededEnvironment } from './random.ts'
import type { Options } from './world.ts'

/** What a client must offer, so that the gateway need not choose. */
export const ONE_SUITE: Options = {
  ike: 'aes256gcm16-prfsha256-x25519',
  esp: 'aes256gcm16-noesn',
}
const PRF_HMAC_SHA2_256 = 5
const AES_GCM_16 = 20
const X25519 = 31

export class Gateway {
  readonly identity: Identity
  private readonly ring = new KeyRing()
  private readonly prf = createPrf('node', PRF_HMAC_SHA2_256)!
  private readonly spiR = new Uint8Array(8).fill(0x77)
  private readonly nonceR = new Uint8Array(32).fill(0x66)
  private spiI: Uint8Array = new Uint8Array(8)
  private nonceI: Uint8Array = new Uint8Array(0)
  private response: Uint8Array = new Uint8Array(0)
  private skPr: Secret | undefined

  constructor(identity: Identity) {
    this.identity = identity
  }

  private facts(exchange: number, messageId: number, fromUs: boolean) {
    const { spiI, spiR } = this
    return { spiI, spiR, exchange, originalInitiator: false, response: fromUs, messageId }
  }

  /** IKE_SA_INIT in, its answer out. */
  init(datagram: Uint8Array, more: readonly Payload[] = []): Uint8Array {
    const message = messageOf(datagram)
    this.spiI = readIkeHeader(message)!.spiI.slice()
    const payloads = readPayloads(message)
    const part = <K extends Payload['kind']>(kind: K) =>
      payloads.find((payload): payload is Payload & { kind: K } => payload.kind === kind)!
    this.nonceI = part('nonce').data.slice()
    const exchange = createKeyExchange('node', X25519, seededEnvironment(8))!
    const shared = exchange.sharedSecret(part('ke').data)!
    const seed = computeSkeyseed(this.prf, this.nonceI, this.nonceR, shared)
    const lengths = { encryption: 36, integrity: 0 }
    const { nonceI, nonceR, spiI, spiR } = this
    const keys = deriveIkeKeys(this.prf, seed, nonceI, nonceR, spiI, spiR, lengths)
    this.skPr = keys.skPr
    this.ring.keyLog({
      kind: 'ike',
      spiI,
      spiR,
      encr: AES_GCM_16,
      keyLength: 256,
      integ: 0,
      skEi: keys.skEi.bytes,
      skEr: keys.skEr.bytes,
      skAi: keys.skAi.bytes,
      skAr: keys.skAr.bytes,
    })
    // SHA-256, SHA-384, SHA-512, Identity.
    const hashes = Uint8Array.of(0, 2, 0, 3, 0, 4, 0, 5)
    this.response = writeMessage(this.facts(ExchangeType.IkeSaInit, 0, true), [
      part('sa'),
      { kind: 'ke', group: X25519, data: exchange.publicValue },
      { kind: 'nonce', data: nonceR },
      notify(NotifyType.SignatureHashAlgorithms, hashes),
      ...more,
    ])
    return datagramOf(this.response)
  }

  /** The payloads of a protected request. */
  open(datagram: Uint8Array): Payload[] {
    const chain = this.ring.open(messageOf(datagram))
    if (chain === undefined) throw new Error('a message that cannot be opened')
    const payloads = readChain(chain.bytes, 0, chain.bytes.length, chain.first)
    if (isChainError(payloads)) throw new Error(payloads.error)
    return payloads
  }

  /** A protected response. */
  seal(
    messageId: number,
    payloads: readonly Payload[],
    exchange: number = ExchangeType.IkeAuth,
  ): Uint8Array {
    return datagramOf(this.ring.sealPayloads(this.facts(exchange, messageId, true), payloads))
  }

  get idr(): Payload {
    return { kind: 'idr', idType: this.identity.type, data: this.identity.data }
  }

  private octets(): Uint8Array {
    return signedOctets(this.prf, this.response, this.nonceI, this.skPr!, this.identity)
  }

  /** IDr, CERT and AUTH; `key` may be another's. The certificate's key is one of P-256. */
  proof(credential: Credential, key = credential.key): Payload[] {
    const { identifier } = SIGNATURE_ALGORITHMS.find(
      ({ kind, hash }) => kind === 'ecdsa' && hash === 'sha256',
    )!
    const signature = new Uint8Array(sign('sha256', this.octets(), key))
    const data = concat(Uint8Array.of(identifier.length), identifier, signature)
    return [
      this.idr,
      { kind: 'cert', encoding: CertEncoding.X509Signature, data: credential.der },
      { kind: 'auth', method: 14, data },
    ]
  }

  /** AUTH by the key of an EAP method. */
  keyed(msk: Uint8Array): Payload {
    return { kind: 'auth', method: 2, data: sharedKeyAuth(this.prf, msk, this.octets()) }
  }

  /** The Child SA as the client asked for it, with an SPI of ours. */
  child(request: readonly Payload[]): Payload[] {
    return request.flatMap((payload): Payload[] => {
      if (payload.kind === 'tsi' || payload.kind === 'tsr') return [payload]
      if (payload.kind !== 'sa') return []
      const [proposal] = payload.proposals
      const spi = Uint8Array.of(0xc0, 0xff, 0xee, 1)
      return [{ kind: 'sa', proposals: [{ ...proposal!, spi }] }]
    })
  }
}
