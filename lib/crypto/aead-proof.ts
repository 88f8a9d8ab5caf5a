/** Known-answer tests for AEAD implementations: a wrong one would send what no peer can decrypt, or accept forgeries. */
import { TAG_LENGTH, type AeadBackend, type AeadName } from '../base/aead-backend.ts'
import { concat, equal, fromHex } from '../base/bytes.ts'

/** Octets around the packet, which an implementation must leave as they are. */
const MARGIN = 24

/** OpenSSL's tags of AES-GCM and ChaCha20-Poly1305 for plaintexts of these lengths; a tag covers its ciphertext. */
const LENGTHS = [2, 77, 1400]
const FACTS: Readonly<Record<AeadName, { keyLength: number; tags: readonly string[] }>> = {
  aes128gcm16: {
    keyLength: 16,
    tags: [
      '3dd2561f6a3a1968828f8e36d95d0eab',
      '9ced0158cf2364aca5e4510036835806',
      'bc929c08f1b178c10646c332377abe18',
    ],
  },
  aes192gcm16: {
    keyLength: 24,
    tags: [
      'e81060ac07be98807179946905f76c2c',
      'c0b24821b7c1a2fe5908f9ca37539deb',
      '1c7f3337a346b4ab2c4afcd4153cf50f',
    ],
  },
  aes256gcm16: {
    keyLength: 32,
    tags: [
      '573a413293e87077effc11789a8229da',
      '781dcb92fa21dac0c13a41c8daa44649',
      'c70dd4e86a0a0aa6f3b04ec6500ff1c1',
    ],
  },
  chacha20poly1305: {
    keyLength: 32,
    tags: [
      '770f5262c5c6b9d996f0383d195fcaa1',
      'a1e49f786cd58c60c0f9ae264a5f444f',
      'ea8e1e564a3928083b60745d678c1648',
    ],
  },
}

const octets = (length: number, first: number, step = 1): Uint8Array =>
  Uint8Array.from({ length }, (_, i) => first + step * i)

/** The implementations that passed, by cipher. */
const proved = new WeakMap<AeadBackend, Set<AeadName>>()

/** The fault of an implementation of that cipher; undefined: none was found. */
export const backendProblem = (name: AeadName, backend: AeadBackend): string | undefined => {
  const already = proved.get(backend)
  if (already?.has(name) === true) return undefined
  let problem
  try {
    problem = firstProblem(name, backend)
  } catch (error) {
    problem = `it throws (${error instanceof Error ? error.message : typeof error})`
  }
  if (problem === undefined) proved.set(backend, new Set(already).add(name))
  return problem
}

const firstProblem = (name: AeadName, backend: AeadBackend): string | undefined => {
  const { keyLength, tags } = FACTS[name]
  const key = octets(keyLength, 0)
  const cipher = backend.create(key)
  key.fill(0)
  try {
    for (const [i, length] of LENGTHS.entries()) {
      const problem = problemAt(cipher, length, fromHex(tags[i]!))
      if (problem !== undefined) return `${problem} (${length} octets)`
    }
    return undefined
  } finally {
    cipher.destroy()
  }
}

const problemAt = (
  cipher: ReturnType<AeadBackend['create']>,
  length: number,
  tag: Uint8Array,
): string | undefined => {
  const nonce = octets(12, 64)
  const aad = octets(12, 96)
  const plaintext = octets(length, length, 7)
  const margin = octets(MARGIN, 200)
  const bytes = concat(margin, plaintext, new Uint8Array(TAG_LENGTH), margin)
  const [from, to] = [MARGIN, MARGIN + length]
  cipher.seal(bytes, from, to, nonce, aad)
  const sealed = bytes.slice()
  if (!equal(bytes.subarray(to, to + TAG_LENGTH), tag)) return 'its tag is wrong'
  const areKept = (): boolean =>
    equal(bytes.subarray(0, MARGIN), margin) &&
    equal(bytes.subarray(to + TAG_LENGTH), margin) &&
    equal(nonce, octets(12, 64)) &&
    equal(aad, octets(12, 96))
  if (!areKept()) return 'seal() changes octets that are not its own'
  const opened = cipher.open(bytes, from, to, nonce, aad)
  if (opened === undefined || !equal(opened, plaintext)) return 'open() gives another plaintext'
  if (!areKept()) return 'open() changes octets that are not its own'
  for (const at of [from, to - 1, to, to + TAG_LENGTH - 1]) {
    const forged = sealed.slice()
    forged[at]! ^= 1
    if (isTaken(() => cipher.open(forged, from, to, nonce, aad))) return 'open() takes a forgery'
  }
  const other = octets(12, 97)
  if (isTaken(() => cipher.open(sealed.slice(), from, to, nonce, other))) {
    return 'open() takes a forgery of the associated data'
  }
  return undefined
}

/** An implementation may refuse a forgery by an exception. */
const isTaken = (open: () => Uint8Array | undefined): boolean => {
  try {
    return open() !== undefined
  } catch {
    return false
  }
}
