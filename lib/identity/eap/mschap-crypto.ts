/**
 * The computations of MS-CHAP version 2 (RFC 2759 §8) and the keys it gives (RFC 3079 §3), by the names that
 * the RFCs have for them. DES, MD4 and SHA-1 are what the protocol consists of: anyone who sees an exchange
 * can find the password by trying, so it is run only towards a gateway that was authenticated before.
 */
import { createCipheriv } from 'node:crypto'
import { concat, utf8 } from '../../base/bytes.ts'
import { noble } from '../../crypto/noble.ts'
import { md4 } from './md4.ts'

export const CHALLENGE_LENGTH = 16
/** EAP's master session key (RFC 3748 §7.10). */
export const MSK_LENGTH = 64

/** `password` is UTF-8; the hash is of its UTF-16 form, least octet first. */
export const ntPasswordHash = (password: Uint8Array): Uint8Array => {
  const text = new TextDecoder('utf-8').decode(password)
  const units = new Uint8Array(2 * text.length)
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i)
    units[2 * i] = unit
    units[2 * i + 1] = unit >>> 8
  }
  const hash = md4(units)
  units.fill(0)
  return hash
}

/** The name is the account's, without a domain in front (RFC 2759 §4). */
export const challengeHash = (
  peerChallenge: Uint8Array,
  authenticatorChallenge: Uint8Array,
  userName: string,
): Uint8Array =>
  noble()
    .sha1(concat(peerChallenge, authenticatorChallenge, utf8(userName)))
    .subarray(0, 8)

/** Seven octets of key spread over eight, the parity bits zero: DES ignores them. */
const desKey = (octets: Uint8Array): Uint8Array => {
  const key = new Uint8Array(8)
  for (let i = 0; i < 8; i++) {
    const before = i === 0 ? 0 : octets[i - 1]! << (8 - i)
    key[i] = (before | ((octets[i] ?? 0) >>> i)) & 0xfe
  }
  return key
}

/** Single DES: OpenSSL 3 keeps it as triple DES alone, which with one key thrice is the same. */
const desEncrypt = (octets: Uint8Array, block: Uint8Array): Uint8Array => {
  const key = desKey(octets)
  const cipher = createCipheriv('des-ede3-ecb', concat(key, key, key), null).setAutoPadding(false)
  return concat(cipher.update(block), cipher.final())
}

/** RFC 2759 §8.5: the hash, filled up to 21 octets, is three keys. */
export const challengeResponse = (challenge: Uint8Array, passwordHash: Uint8Array): Uint8Array => {
  const keys = concat(passwordHash, new Uint8Array(5))
  const blocks = [0, 7, 14].map(at => desEncrypt(keys.subarray(at, at + 7), challenge))
  keys.fill(0)
  return concat(...blocks)
}

const SERVER_TO_CLIENT = utf8('Magic server to client signing constant')
const MORE_THAN_ONE = utf8('Pad to make it do more than one iteration')

/** The 20 octets that the authenticator writes as hexadecimal digits (RFC 2759 §8.7). */
export const authenticatorResponse = (
  passwordHash: Uint8Array,
  ntResponse: Uint8Array,
  challenge: Uint8Array,
): Uint8Array => {
  const digest = noble().sha1(concat(md4(passwordHash), ntResponse, SERVER_TO_CLIENT))
  return noble().sha1(concat(digest, challenge, MORE_THAN_ONE))
}

const MASTER_KEY = utf8('This is the MPPE Master Key')
const CLIENT_SENDS = utf8(
  'On the client side, this is the send key; on the server side, it is the receive key.',
)
const CLIENT_RECEIVES = utf8(
  'On the client side, this is the receive key; on the server side, it is the send key.',
)
const PAD_1 = new Uint8Array(40)
const PAD_2 = new Uint8Array(40).fill(0xf2)

/** RFC 3079 §3.4, of 16 octets. */
export const masterKey = (passwordHash: Uint8Array, ntResponse: Uint8Array): Uint8Array =>
  noble()
    .sha1(concat(md4(passwordHash), ntResponse, MASTER_KEY))
    .subarray(0, 16)

const asymmetricStartKey = (master: Uint8Array, magic: Uint8Array): Uint8Array =>
  noble()
    .sha1(concat(master, PAD_1, magic, PAD_2))
    .subarray(0, 16)

export const clientSendKey = (master: Uint8Array): Uint8Array =>
  asymmetricStartKey(master, CLIENT_SENDS)

export const clientReceiveKey = (master: Uint8Array): Uint8Array =>
  asymmetricStartKey(master, CLIENT_RECEIVES)

/**
 * EAP's master session key: the authenticator's receive key, its send key, zeros
 * (draft-kamath-pppext-eap-mschapv2 §2.5; what it receives with is what the client sends with).
 */
export const mschapMsk = (passwordHash: Uint8Array, ntResponse: Uint8Array): Uint8Array => {
  const master = masterKey(passwordHash, ntResponse)
  const msk = new Uint8Array(MSK_LENGTH)
  msk.set(clientSendKey(master))
  msk.set(clientReceiveKey(master), 16)
  master.fill(0)
  return msk
}
