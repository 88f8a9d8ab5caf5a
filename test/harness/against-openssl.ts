/** An implementation of an AEAD beside node:crypto, by packets of many lengths in many places. */
import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto'
import type { AeadBackend, AeadName } from '../../lib/base/aead-backend.ts'

const TAG = 16
const ALGORITHMS: Readonly<Record<AeadName, readonly [algorithm: string, keyLength: number]>> = {
  aes128gcm16: ['aes-128-gcm', 16],
  aes192gcm16: ['aes-192-gcm', 24],
  aes256gcm16: ['aes-256-gcm', 32],
  chacha20poly1305: ['chacha20-poly1305', 32],
}

/** What differs, of `rounds` packets each of which is sealed, opened, and refused when one bit of it is another. */
export const differences = (name: AeadName, backend: AeadBackend, rounds: number): string[] => {
  const found: string[] = []
  const [algorithm, keyLength] = ALGORITHMS[name]
  const key = randomBytes(keyLength)
  const [ours, theirs] = [
    backend.create(Uint8Array.from(key)),
    backend.create(Uint8Array.from(key)),
  ]
  for (let round = 0; round < rounds; round++) {
    const length = round < 100 ? round : Math.floor(Math.random() ** 3 * 65_000)
    const from = Math.floor(Math.random() * 40)
    const to = from + length
    const aad = randomBytes(round % 10 === 9 ? 3000 : 8 + (round % 60))
    const [nonce, plaintext] = [randomBytes(12), randomBytes(length)]
    const say = (what: string): void => void found.push(`${what}: ${length} octets at ${from}`)

    const bytes = new Uint8Array(to + TAG + (round % 3))
    bytes.set(plaintext, from)
    ours.seal(bytes, from, to, nonce, aad)
    const options = { authTagLength: TAG }
    const cipher = createCipheriv(algorithm as 'aes-256-gcm', key, nonce, options)
    cipher.setAAD(aad, { plaintextLength: length })
    const expected = Buffer.concat([cipher.update(plaintext), cipher.final(), cipher.getAuthTag()])
    if (!expected.equals(bytes.subarray(from, to + TAG))) say('sealed wrongly')

    const forged = bytes.slice()
    forged[from + Math.floor(Math.random() * (length + TAG))]! ^= 1 << (round & 7)
    if (theirs.open(forged, from, to, nonce, aad) !== undefined) say('a forgery is taken')
    const other = Uint8Array.from(aad)
    other[round % aad.length]! ^= 1
    if (theirs.open(bytes.slice(), from, to, nonce, other) !== undefined) say('other data is taken')

    // node:crypto says so too, after what it may have left behind in OpenSSL.
    const decipher = createDecipheriv(algorithm as 'aes-256-gcm', key, nonce, options)
    decipher.setAAD(aad, { plaintextLength: length }).setAuthTag(bytes.subarray(to, to + TAG))
    const text = Buffer.concat([decipher.update(bytes.subarray(from, to)), decipher.final()])
    const opened = theirs.open(bytes, from, to, nonce, aad)
    if (opened === undefined || !text.equals(opened)) say('opened wrongly')
    else if (opened.buffer !== bytes.buffer) say('the plaintext does not lie in its place')
  }
  ours.destroy()
  theirs.destroy()
  return found
}
