/** MD4 and MS-CHAP by the examples of their RFCs. */
import t from 'tap'
import { concat, fromHex, toHex, utf8 } from '../../../lib/base/bytes.ts'
import { md4 } from '../../../lib/identity/eap/md4.ts'
import {
  authenticatorResponse,
  challengeHash,
  challengeResponse,
  clientReceiveKey,
  masterKey,
  mschapMsk,
  ntPasswordHash,
} from '../../../lib/identity/eap/mschap-crypto.ts'

t.test('MD4 gives the digests of RFC 1320 appendix A.5', t => {
  const digests = [
    ['', '31d6cfe0d16ae931b73c59d7e0c089c0'],
    ['a', 'bde52cb31de33e46245e05fbdbd6fb24'],
    ['abc', 'a448017aaf21d8525fc10ae87aa6729d'],
    ['message digest', 'd9130a8164549fe818874806e1c7014b'],
    ['abcdefghijklmnopqrstuvwxyz', 'd79e1c308aa5bbcdeea8ed63df412da9'],
    [
      'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789',
      '043f8582f241db351ce627e153e7f0e4',
    ],
    ['1234567890'.repeat(8), 'e33b4ddc9c38f2199c3e7b164fcc0536'],
  ] as const
  for (const [message, digest] of digests) t.equal(toHex(md4(utf8(message))), digest, message)
  t.end()
})

t.test('MD4 pads right at every length around a block', t => {
  const digests = new Set<string>()
  for (let length = 50; length < 130; length++) digests.add(toHex(md4(new Uint8Array(length))))
  t.equal(digests.size, 80)
  t.end()
})

// RFC 2759 §9.2, RFC 3079 §3.5.3
const authenticatorChallenge = fromHex('5b5d7c7d7b3f2f3e3c2c602132262628')
const peerChallenge = fromHex('21402324255e262a28295f2b3a337c7e')

t.test('the example of RFC 2759 §9.2 and its keys in RFC 3079 §3.5.3', t => {
  const hash = ntPasswordHash(utf8('clientPass'))
  t.equal(toHex(hash), '44ebba8d5312b8d611474411f56989ae')
  const challenge = challengeHash(peerChallenge, authenticatorChallenge, 'User')
  t.equal(toHex(challenge), 'd02e4386bce91226')
  const response = challengeResponse(challenge, hash)
  t.equal(toHex(response), '82309ecd8d708b5ea08faa3981cd83544233114a3d85d6df')
  t.equal(
    toHex(authenticatorResponse(hash, response, challenge)).toUpperCase(),
    '407A5589115FD0D6209F510FE9C04566932CDA56',
  )
  const master = masterKey(hash, response)
  t.equal(toHex(master), 'fdece3717a8c838cb388e527ae3cdd31')
  // The example is of a server that sends: what the client receives with.
  t.equal(toHex(clientReceiveKey(master)), '8b7cdc149b993a1ba118cb153f56dccb')
  const msk = mschapMsk(hash, response)
  t.equal(msk.length, 64)
  t.strictSame(msk.subarray(16, 32), clientReceiveKey(master))
  t.strictSame(msk.subarray(32), new Uint8Array(32))
  t.notSame(msk.subarray(0, 16), msk.subarray(16, 32))
  t.end()
})

t.test('a password outside ASCII is hashed in UTF-16', t => {
  const units = concat(Uint8Array.of(0xe9, 0, 0xac, 0x20), Uint8Array.of(0x3d, 0xd8, 0x11, 0xdd))
  t.strictSame(ntPasswordHash(utf8('é€🔑')), md4(units))
  t.end()
})
