/** What the other end must know, read from the options of ours, in no product's words yet. */
import { isIP } from 'node:net'
import { equal } from '../base/bytes.ts'
import { UsageError } from './usage.ts'

export interface PeerPlan {
  /** Our end opens the SA; else the other end does. */
  readonly weConnect: boolean
  /** Address or name of our end; `%any` where it is a client from anywhere. */
  readonly ourAddress: string
  /** Address or name of the other end. */
  readonly theirAddress: string
  readonly ourId: string
  readonly theirId: string
  /** Undefined: by certificate. */
  readonly psk: Uint8Array | undefined
  /** Proposals in our keywords; undefined: a product's usual ones, all of which we have. */
  readonly ike: readonly string[] | undefined
  readonly esp: readonly string[] | undefined
  readonly isTunnel: boolean
  /** Networks; undefined: the address of the end itself. */
  readonly ourNetworks: readonly string[] | undefined
  readonly theirNetworks: readonly string[] | undefined
  /** The end that opens the SA gets an inner address. */
  readonly givesAddress: boolean
  /** UDP port of our end. */
  readonly ikePort: number
  /** File names, without folder, of what stands for the certificates at the other end. */
  readonly certificate: string
  readonly authority: string
}

type Given = Readonly<Record<string, unknown>>

const textsOf = (value: unknown): readonly string[] | undefined => {
  if (value === undefined) return undefined
  const list = (Array.isArray(value) ? value : [value]).flatMap(item => String(item).split(','))
  return list.map(item => item.trim())
}

/** One key, as octets: of several that a rotation has, the first. */
const keyOf = (value: unknown, theirId: string): Uint8Array | undefined => {
  if (value === undefined) return undefined
  if (typeof value === 'string') return new Uint8Array(Buffer.from(value))
  if (value instanceof Uint8Array) return value
  if (Array.isArray(value)) return keyOf(value[0], theirId)
  if (typeof value === 'object' && value !== null) {
    const table = new Map(Object.entries(value))
    const found: unknown = table.get(theirId) ?? table.get('*')
    if (found !== undefined) return keyOf(found, theirId)
  }
  throw new UsageError(`"psk" has no key for ${theirId}: set "remoteId" to one that is there`)
}

export interface PlanTerms {
  readonly as: 'client' | 'server'
  /** Where our end is, as the other one reaches it. */
  readonly address: string | undefined
  readonly peer: string | undefined
  readonly certificate: string | undefined
  readonly authority: string | undefined
}

/** Of options that have been checked before. */
export const readPlan = (options: Given, terms: PlanTerms): PeerPlan => {
  const weConnect = terms.as === 'client'
  const theirAddress = terms.peer ?? (options['gateway'] as string | undefined)
  if (weConnect && theirAddress === undefined)
    throw new UsageError('--peer is missing: the address or name of the other end')
  if (!weConnect && terms.address === undefined)
    throw new UsageError('--address is missing: the address or name of our end')
  const ourId = (options['localId'] as string | undefined) ?? terms.address
  if (ourId === undefined)
    throw new UsageError('"localId" is missing: the other end must know whom to expect')
  const theirId = (options['remoteId'] as string | undefined) ?? theirAddress ?? '%any'
  const hasCertificates = options['cert'] !== undefined || options['pfx'] !== undefined
  const mode = options['mode']
  return {
    weConnect,
    ourAddress: terms.address ?? '%any',
    theirAddress: theirAddress ?? '%any',
    ourId,
    theirId,
    psk: hasCertificates ? undefined : keyOf(options['psk'], theirId),
    ike: textsOf(options['ike']),
    esp: textsOf(options['esp']),
    isTunnel:
      mode === 'tunnel' || options['virtualAddress'] === true || options['localTs'] !== undefined,
    ourNetworks: textsOf(options['localTs']),
    theirNetworks: textsOf(options['remoteTs']),
    givesAddress: options['virtualAddress'] === true || options['addressPool'] !== undefined,
    ikePort: (options['ikePort'] as number | undefined) ?? 4500,
    certificate: terms.certificate ?? (weConnect ? 'server-ecdsa.crt' : 'client-ecdsa.crt'),
    authority: terms.authority ?? 'ca.crt',
  }
}

// --- proposals ---

export interface Algorithms {
  readonly ciphers: readonly string[]
  readonly integrity: readonly string[]
  readonly prfs: readonly string[]
  readonly groups: readonly string[]
}

const GROUPS = /^(x25519|x448|ecp\d+|modp\d+)$/
const CIPHERS = /^(aes\d+(gcm16)?|chacha20poly1305)$/

/** What a proposal in our keywords has. */
export const algorithmsOf = (proposal: string): Algorithms => {
  const words = proposal.toLowerCase().split('-')
  return {
    ciphers: words.filter(word => CIPHERS.test(word)),
    integrity: words.filter(word => /^sha\d+$/.test(word)),
    prfs: words.filter(word => word.startsWith('prf')),
    groups: words.filter(word => GROUPS.test(word)),
  }
}

/** A product's words for ours; one that it has not is refused with what to do. */
export const translator =
  (product: string, words: Readonly<Record<string, string>>) =>
  (word: string): string => {
    const known = new Map(Object.entries(words)).get(word)
    if (known !== undefined) return known
    throw new UsageError(
      `${product} has no ${word}: give "ike" and "esp" of its own, of ${Object.keys(words).join(', ')}`,
    )
  }

/** An IPv4 or IPv6 address stands for itself, a name for a host. */
export const isAddress = (text: string): boolean => isIP(text) !== 0

/** A key as text; octets that are no text are refused where a product takes text alone. */
export const keyText = (
  product: string,
  psk: Uint8Array,
  allowed: RegExp,
  words: string,
): string => {
  const text = Buffer.from(psk).toString('utf8')
  if (equal(Buffer.from(text), psk) && allowed.test(text)) return text
  throw new UsageError(
    `${product} takes a pre-shared key of ${words} alone: give both ends such a key`,
  )
}
