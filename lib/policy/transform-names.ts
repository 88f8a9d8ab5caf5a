/** Names of transforms for people, those that only peers offer as well (RFC 7296 §3.3.2). */
import { nameOf, TransformType } from '../wire/registry.ts'
import type { Transform } from '../wire/sa.ts'

/** By ID; '#' stands for the length of the key, where the peer says one. */
const CIPHERS: Readonly<Record<number, string>> = {
  1: 'desiv64',
  2: 'des',
  3: '3des',
  4: 'rc5',
  5: 'idea',
  6: 'cast#',
  7: 'blowfish#',
  11: 'null',
  12: 'aes#',
  13: 'aes#ctr',
  14: 'aes#ccm8',
  15: 'aes#ccm12',
  16: 'aes#ccm16',
  18: 'aes#gcm8',
  19: 'aes#gcm12',
  20: 'aes#gcm16',
  21: 'aes#gmac',
  23: 'camellia#',
  24: 'camellia#ctr',
  25: 'camellia#ccm8',
  26: 'camellia#ccm12',
  27: 'camellia#ccm16',
  28: 'chacha20poly1305',
  29: 'aes#ccm8iiv',
  30: 'aes#gcm16iiv',
  31: 'chacha20poly1305iiv',
}

const PRFS: Readonly<Record<number, string>> = {
  1: 'prfmd5',
  2: 'prfsha1',
  3: 'prftiger',
  4: 'prfaesxcbc',
  5: 'prfsha256',
  6: 'prfsha384',
  7: 'prfsha512',
  8: 'prfaescmac',
}

const INTEGRITY: Readonly<Record<number, string>> = {
  0: 'noauth',
  1: 'md5',
  2: 'sha1',
  3: 'desmac',
  4: 'kpdkmd5',
  5: 'aesxcbc',
  6: 'md5_128',
  7: 'sha1_160',
  8: 'aescmac',
  9: 'aes128gmac',
  10: 'aes192gmac',
  11: 'aes256gmac',
  12: 'sha256',
  13: 'sha384',
  14: 'sha512',
}

const KEY_EXCHANGES: Readonly<Record<number, string>> = {
  0: 'nopfs',
  1: 'modp768',
  2: 'modp1024',
  5: 'modp1536',
  14: 'modp2048',
  15: 'modp3072',
  16: 'modp4096',
  17: 'modp6144',
  18: 'modp8192',
  19: 'ecp256',
  20: 'ecp384',
  21: 'ecp521',
  22: 'modp1024s160',
  23: 'modp2048s224',
  24: 'modp2048s256',
  25: 'ecp192',
  26: 'ecp224',
  27: 'ecp224bp',
  28: 'ecp256bp',
  29: 'ecp384bp',
  30: 'ecp512bp',
  31: 'x25519',
  32: 'x448',
  33: 'gost256',
  34: 'gost512',
  35: 'mlkem512',
  36: 'mlkem768',
  37: 'mlkem1024',
}

const SEQUENCE_NUMBERS: Readonly<Record<number, string>> = { 0: 'noesn', 1: 'esn' }

const NAMES: Readonly<Record<number, Readonly<Record<number, string>>>> = {
  [TransformType.Encr]: CIPHERS,
  [TransformType.Prf]: PRFS,
  [TransformType.Integ]: INTEGRITY,
  [TransformType.Ke]: KEY_EXCHANGES,
  [TransformType.Esn]: SEQUENCE_NUMBERS,
}

/** The additional key exchanges of RFC 9370 are of the same methods, and types of their own. */
const FIRST_ADDITIONAL = 6
const LAST_ADDITIONAL = 12

const additional = (type: number): number | undefined =>
  type >= FIRST_ADDITIONAL && type <= LAST_ADDITIONAL ? type - FIRST_ADDITIONAL + 1 : undefined

/** The word for a transform in proposals; numbers only where no registry that we know has a name. */
export const transformName = ({ type, id, keyLength, unknown }: Transform): string => {
  const exchange = additional(type)
  const known = (exchange === undefined ? NAMES[type] : KEY_EXCHANGES)?.[id]
  const name = known ?? `${transformTypeName(type)}:${id}`
  const withLength =
    keyLength === undefined || name.includes('#')
      ? name.replace('#', String(keyLength ?? ''))
      : `${name}:${keyLength}`
  const ofType = exchange === undefined || known === undefined ? '' : `ke${exchange}_`
  return `${ofType}${withLength}${unknown === true ? ' with an unknown attribute' : ''}`
}

export const transformTypeName = (type: number): string => {
  const exchange = additional(type)
  return exchange === undefined ? nameOf(TransformType, type) : `AdditionalKe${exchange}`
}

/** The name of a key exchange method, or its number. */
export const groupName = (id: number): string => KEY_EXCHANGES[id] ?? String(id)
