/**
 * Algorithm strings and proposals (RFC 7296 §3.3): parsing the keyword syntax that strongSwan made
 * common, choosing as responder, checking the choice as initiator.
 */
import { EMPTY } from '../base/bytes.ts'
import { listOf, OptionError } from '../base/errors.ts'
import {
  Encr,
  Esn,
  Integ,
  isAead,
  KeGroup,
  Prf,
  ProtocolId,
  TransformType,
} from '../wire/registry.ts'
import type { Proposal, Transform } from '../wire/sa.ts'
import { transformName } from './transform-names.ts'

// --- keywords ---

const encr = (id: number, keyLength?: number): Transform => ({
  type: TransformType.Encr,
  id,
  ...(keyLength === undefined ? {} : { keyLength }),
})
const prf = (id: number): Transform => ({ type: TransformType.Prf, id })
const integ = (id: number): Transform => ({ type: TransformType.Integ, id })
const ke = (id: number): Transform => ({ type: TransformType.Ke, id })
const esn = (id: number): Transform => ({ type: TransformType.Esn, id })

/** SHA-1 and MODP-1024 stand here for peers that have nothing else; no default names them (RFC 8247). */
const KEYWORDS: ReadonlyMap<string, Transform> = new Map(
  Object.entries({
    aes128gcm16: encr(Encr.AesGcm16, 128),
    aes192gcm16: encr(Encr.AesGcm16, 192),
    aes256gcm16: encr(Encr.AesGcm16, 256),
    chacha20poly1305: encr(Encr.Chacha20Poly1305),
    aes128: encr(Encr.AesCbc, 128),
    aes192: encr(Encr.AesCbc, 192),
    aes256: encr(Encr.AesCbc, 256),
    prfsha1: prf(Prf.HmacSha1),
    prfsha256: prf(Prf.HmacSha2_256),
    prfsha384: prf(Prf.HmacSha2_384),
    prfsha512: prf(Prf.HmacSha2_512),
    sha1: integ(Integ.HmacSha1_96),
    sha256: integ(Integ.HmacSha2_256_128),
    sha384: integ(Integ.HmacSha2_384_192),
    sha512: integ(Integ.HmacSha2_512_256),
    x25519: ke(KeGroup.X25519),
    x448: ke(KeGroup.X448),
    ecp256: ke(KeGroup.P256),
    ecp384: ke(KeGroup.P384),
    ecp521: ke(KeGroup.P521),
    modp1024: ke(KeGroup.Modp1024),
    modp2048: ke(KeGroup.Modp2048),
    modp3072: ke(KeGroup.Modp3072),
    modp4096: ke(KeGroup.Modp4096),
    esn: esn(Esn.Yes),
    noesn: esn(Esn.No),
  }),
)

const ALIASES: ReadonlyMap<string, string> = new Map(
  Object.entries({
    aes128gcm: 'aes128gcm16',
    aes192gcm: 'aes192gcm16',
    aes256gcm: 'aes256gcm16',
    aes128gcm128: 'aes128gcm16',
    aes256gcm128: 'aes256gcm16',
    curve25519: 'x25519',
    curve448: 'x448',
    sha2_256: 'sha256',
    sha2_384: 'sha384',
    sha2_512: 'sha512',
  }),
)

/** The PRF that goes with an integrity algorithm when a string names no PRF, as strongSwan reads it. */
const PRF_OF_INTEG: Readonly<Record<number, number>> = {
  [Integ.HmacSha1_96]: Prf.HmacSha1,
  [Integ.HmacSha2_256_128]: Prf.HmacSha2_256,
  [Integ.HmacSha2_384_192]: Prf.HmacSha2_384,
  [Integ.HmacSha2_512_256]: Prf.HmacSha2_512,
}

// --- strings to proposals ---

type Kind = 'ike' | 'esp'

/** Reads `aes256gcm16-prfsha256-x25519` strings; `option` names them in an error. */
export const parseProposals = (option: string, value: unknown, kind: Kind): readonly Proposal[] => {
  const strings = listOf(option, value)
  if (strings.length === 0) throw new OptionError(option, value, 'one proposal or more')
  return strings
    .flatMap(text => (typeof text === 'string' ? text.split(',') : [text]))
    .map((text, i) => parseProposal(option, text, kind, i + 1))
}

const parseProposal = (option: string, value: unknown, kind: Kind, number: number): Proposal => {
  const example = kind === 'ike' ? 'aes256gcm16-prfsha256-x25519' : 'aes256gcm16-x25519-esn'
  const refuse = (why: string): never => {
    throw new OptionError(option, value, `a proposal like '${example}' (${why})`)
  }
  if (typeof value !== 'string' || value.trim() === '') return refuse('a string of algorithms')
  const transforms: Transform[] = []
  for (const word of value.trim().toLowerCase().split('-')) {
    const transform = KEYWORDS.get(ALIASES.get(word) ?? word)
    if (transform === undefined) {
      return refuse(`'${word.slice(0, 30)}' is not one of ${[...KEYWORDS.keys()].join(', ')}`)
    }
    if (!transforms.some(other => sameTransform(other, transform))) transforms.push(transform)
  }
  const has = (type: number): boolean => transforms.some(transform => transform.type === type)
  const ciphers = transforms.filter(({ type }) => type === TransformType.Encr)
  if (ciphers.length === 0) refuse('an encryption algorithm is missing')
  const aead = ciphers.every(({ id }) => isAead(id))
  if (!aead && ciphers.some(({ id }) => isAead(id))) refuse('AEAD and other ciphers do not mix')
  if (!aead && !has(TransformType.Integ)) refuse('an integrity algorithm is missing')

  if (kind === 'esp') {
    if (has(TransformType.Prf)) refuse('ESP has no PRF')
    if (aead && has(TransformType.Integ)) refuse('an AEAD brings its own integrity')
    if (!has(TransformType.Esn)) transforms.push(esn(Esn.Yes), esn(Esn.No))
    return { number, protocol: ProtocolId.Esp, spi: EMPTY, transforms }
  }
  if (has(TransformType.Esn)) refuse('IKE has no extended sequence numbers')
  if (!has(TransformType.Prf)) {
    for (const { type, id } of [...transforms]) {
      const match = PRF_OF_INTEG[id]
      if (type === TransformType.Integ && match !== undefined) transforms.push(prf(match))
    }
  }
  if (!has(TransformType.Prf)) refuse('a PRF is missing')
  if (!has(TransformType.Ke)) refuse('a key exchange method is missing')
  const kept = aead ? transforms.filter(({ type }) => type !== TransformType.Integ) : transforms
  return { number, protocol: ProtocolId.Ike, spi: EMPTY, transforms: kept }
}

/**
 * One proposal for each cipher, strongest first: some peers take the weaker of two in one proposal.
 * Algorithms are those RFC 8247 and RFC 8221 call MUST or SHOULD.
 */
const KE_ALL = 'x25519-ecp256-ecp384-ecp521-modp2048-modp3072-modp4096'
const PRF_ALL = 'prfsha256-prfsha384-prfsha512'
const INTEG_ALL = 'sha256-sha384-sha512'

export const DEFAULT_IKE = [
  `aes256gcm16-${PRF_ALL}-${KE_ALL}`,
  `aes128gcm16-${PRF_ALL}-${KE_ALL}`,
  `chacha20poly1305-${PRF_ALL}-${KE_ALL}`,
  `aes256-${INTEG_ALL}-${PRF_ALL}-${KE_ALL}`,
  `aes128-${INTEG_ALL}-${PRF_ALL}-${KE_ALL}`,
] as const

export const DEFAULT_ESP = [
  'aes256gcm16',
  'aes128gcm16',
  'chacha20poly1305',
  `aes256-${INTEG_ALL}`,
  `aes128-${INTEG_ALL}`,
] as const

const CHACHA = 'chacha20poly1305'
/** For an end that prefers it. Whether it is used is for the responder to say, by an order of its own (RFC 7296 §2.7). */
export const CHACHA_FIRST_ESP = [CHACHA, ...DEFAULT_ESP.filter(text => text !== CHACHA)] as const

// --- proposals to strings ---

/** The keyword string of a proposal, for errors and logs. */
export const formatProposal = (proposal: Proposal): string =>
  proposal.transforms.map(transformName).join('-')

// --- negotiation ---

export const sameTransform = (a: Transform, b: Transform): boolean =>
  a.type === b.type &&
  a.id === b.id &&
  a.keyLength === b.keyLength &&
  a.unknown === undefined &&
  b.unknown === undefined

export const transformsOf = (proposal: Proposal, type: number): readonly Transform[] =>
  proposal.transforms.filter(transform => transform.type === type)

/** The chosen transform of a type, or its ID 0. */
export const chosen = (proposal: Proposal, type: number): Transform =>
  proposal.transforms.find(transform => transform.type === type) ?? { type, id: 0 }

export type Choice =
  | { readonly kind: 'chosen'; readonly proposal: Proposal }
  /** The types of transform in which the nearest pair of proposals did not meet. */
  | { readonly kind: 'none'; readonly unmet: readonly number[] }

/**
 * The responder's choice (§2.7): the first proposal of ours that one of the peer's meets, with one
 * transform of each type. Types that an end leaves out mean "none" where that is allowed (§3.3.3).
 */
export const chooseProposal = (
  offered: readonly Proposal[],
  accepted: readonly Proposal[],
): Choice => {
  let unmet: number[] | undefined
  for (const ours of accepted) {
    for (const theirs of offered) {
      if (theirs.protocol !== ours.protocol) continue
      const result = intersect(theirs, ours)
      if (result.unmet.length === 0) {
        return { kind: 'chosen', proposal: { ...theirs, transforms: result.transforms } }
      }
      if (unmet === undefined || result.unmet.length < unmet.length) unmet = result.unmet
    }
  }
  return { kind: 'none', unmet: unmet ?? [] }
}

const OPTIONAL: readonly number[] = [TransformType.Integ, TransformType.Ke]
const NONE_ID = 0

const intersect = (
  theirs: Proposal,
  ours: Proposal,
): { transforms: Transform[]; unmet: number[] } => {
  const transforms: Transform[] = []
  const unmet: number[] = []
  for (const type of typesIn(theirs, ours)) {
    const match = ours.transforms.find(
      one => one.type === type && theirs.transforms.some(other => sameTransform(one, other)),
    )
    if (match !== undefined) transforms.push(match)
    else if (!takesNone(theirs, type) || !takesNone(ours, type)) unmet.push(type)
    else if (hasType(theirs, type)) transforms.push({ type, id: NONE_ID })
  }
  return { transforms, unmet }
}

/** In order of first mention. */
const typesIn = (...proposals: readonly Proposal[]): number[] => {
  const types: number[] = []
  for (const { transforms } of proposals) {
    for (const { type } of transforms) if (!types.includes(type)) types.push(type)
  }
  return types
}

const hasType = ({ transforms }: Proposal, type: number): boolean =>
  transforms.some(transform => transform.type === type)

const takesNone = (proposal: Proposal, type: number): boolean =>
  OPTIONAL.includes(type) &&
  (!hasType(proposal, type) ||
    proposal.transforms.some(transform => transform.type === type && transform.id === NONE_ID))

/**
 * The initiator's check (§3.3.6): the answer is one of our proposals by its number, with exactly one
 * transform of each type we offered in it and none that we did not.
 */
export const checkChosen = (
  offered: readonly Proposal[],
  answer: readonly Proposal[],
): Proposal | undefined => {
  const [only, ...more] = answer
  if (only === undefined || more.length > 0) return undefined
  const ours = offered.find(({ number }) => number === only.number)
  if (ours === undefined || ours.protocol !== only.protocol) return undefined
  const seen = new Set<number>()
  for (const transform of only.transforms) {
    const isNone = transform.id === NONE_ID && OPTIONAL.includes(transform.type)
    const wasOffered =
      ours.transforms.some(other => sameTransform(other, transform)) ||
      (isNone && !hasType(ours, transform.type))
    if (!wasOffered || seen.has(transform.type)) return undefined
    seen.add(transform.type)
  }
  for (const { type } of ours.transforms) {
    if (seen.has(type)) continue
    const list = transformsOf(ours, type)
    if (!OPTIONAL.includes(type) || !list.some(({ id }) => id === NONE_ID)) return undefined
  }
  return only
}

/** Gives each proposal the SPI of the SA it would make. */
export const withSpi = (proposals: readonly Proposal[], spi: Uint8Array): Proposal[] =>
  proposals.map((proposal, i) => ({ ...proposal, number: i + 1, spi }))

/** For the Child SA of IKE_AUTH, which has no key exchange of its own (§1.2). */
export const withoutKe = (proposals: readonly Proposal[]): Proposal[] =>
  proposals.map(proposal => ({
    ...proposal,
    transforms: proposal.transforms.filter(({ type }) => type !== TransformType.Ke),
  }))

/** For perfect forward secrecy: proposals that name no method of their own get these. */
export const withKe = (proposals: readonly Proposal[], groups: readonly number[]): Proposal[] =>
  proposals.map(proposal =>
    hasType(proposal, TransformType.Ke)
      ? proposal
      : { ...proposal, transforms: [...proposal.transforms, ...groups.map(ke)] },
  )

/** The groups of a list of proposals, in order of first mention. */
export const groupsOf = (proposals: readonly Proposal[]): number[] => {
  const groups: number[] = []
  for (const { transforms } of proposals) {
    for (const { type, id } of transforms) {
      if (type === TransformType.Ke && !groups.includes(id)) groups.push(id)
    }
  }
  return groups
}
