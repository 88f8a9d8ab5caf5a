/** Keys of IKE SAs and Child SAs (RFC 7296 §2.14, §2.17, §2.18). */
import { concat, EMPTY } from '../base/bytes.ts'
import { moveSecret, Secret } from '../base/secret.ts'
import { prfPlus, type Prf } from './prf.ts'

/** Lengths in octets of the keys that the negotiated algorithms need. */
export interface KeyLengths {
  readonly encryption: number
  readonly integrity: number
}

export interface IkeKeys {
  readonly skD: Secret
  readonly skAi: Secret
  readonly skAr: Secret
  readonly skEi: Secret
  readonly skEr: Secret
  readonly skPi: Secret
  readonly skPr: Secret
}

export const wipeIkeKeys = (keys: IkeKeys): void => {
  for (const key of Object.values(keys) as Secret[]) key.wipe()
}

/** §2.14: SKEYSEED of a new IKE SA. */
export const computeSkeyseed = (
  prf: Prf,
  nonceI: Uint8Array,
  nonceR: Uint8Array,
  shared: Uint8Array,
): Uint8Array => prf.compute(concat(nonceI, nonceR), shared)

/** §2.18: SKEYSEED of a rekeyed IKE SA, with the PRF and SK_d of the old one. */
export const computeRekeySkeyseed = (
  oldPrf: Prf,
  skD: Secret,
  shared: Uint8Array,
  nonceI: Uint8Array,
  nonceR: Uint8Array,
): Uint8Array => oldPrf.compute(skD.bytes, shared, nonceI, nonceR)

export const deriveIkeKeys = (
  prf: Prf,
  skeyseed: Uint8Array,
  nonceI: Uint8Array,
  nonceR: Uint8Array,
  spiI: Uint8Array,
  spiR: Uint8Array,
  lengths: KeyLengths,
): IkeKeys => {
  const { encryption, integrity } = lengths
  const total = 3 * prf.length + 2 * integrity + 2 * encryption
  const stream = prfPlus(prf, skeyseed, concat(nonceI, nonceR, spiI, spiR), total)
  const take = cutter(stream)
  const keys = {
    skD: take(prf.length),
    skAi: take(integrity),
    skAr: take(integrity),
    skEi: take(encryption),
    skEr: take(encryption),
    skPi: take(prf.length),
    skPr: take(prf.length),
  }
  stream.fill(0)
  skeyseed.fill(0)
  return keys
}

/** RFC 8784 §3: SK_d, SK_pi or SK_pr with a post-quantum key mixed in. */
export const mixPpk = (prf: Prf, ppk: Secret, key: Secret): Secret =>
  Secret.adopt(prfPlus(prf, ppk.bytes, key.bytes, key.length))

export interface DirectionKeys {
  readonly encryption: Secret
  readonly integrity: Secret
}

/** Keyed by the sender: the initiator of the exchange that made the Child SA, or its responder. */
export interface ChildKeyMaterial {
  readonly initiator: DirectionKeys
  readonly responder: DirectionKeys
}

/** §2.17. `shared` is present only with perfect forward secrecy. */
export const deriveChildKeys = (
  prf: Prf,
  skD: Secret,
  nonceI: Uint8Array,
  nonceR: Uint8Array,
  shared: Uint8Array | undefined,
  lengths: KeyLengths,
): ChildKeyMaterial => {
  const { encryption, integrity } = lengths
  const seed = moveSecret(concat(shared ?? EMPTY, nonceI, nonceR))
  const stream = prfPlus(prf, skD.bytes, seed, 2 * (encryption + integrity))
  const take = cutter(stream)
  const material = {
    initiator: { encryption: take(encryption), integrity: take(integrity) },
    responder: { encryption: take(encryption), integrity: take(integrity) },
  }
  stream.fill(0)
  seed.fill(0)
  return material
}

const cutter = (stream: Uint8Array): ((length: number) => Secret) => {
  let at = 0
  return length => {
    at += length
    return new Secret(stream.subarray(at - length, at))
  }
}
