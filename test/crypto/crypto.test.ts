/** Published vectors through our own interfaces, on both backends. Files of other projects are read where they lie. */
import { existsSync, readFileSync } from 'node:fs'
import t from 'tap'
import { concat, equal, fromHex, toHex } from '../../lib/base/bytes.ts'
import { Secret } from '../../lib/base/secret.ts'
import {
  createKeyExchange,
  publicValueLength,
  type KeyExchange,
} from '../../lib/crypto/key-exchange.ts'
import {
  computeRekeySkeyseed,
  computeSkeyseed,
  deriveChildKeys,
} from '../../lib/crypto/key-material.ts'
import { computeHmac, createPrf, prfPlus } from '../../lib/crypto/prf.ts'
import { createAead } from '../../lib/crypto/suite.ts'
import { Encr, HashAlgorithm, Integ, KeGroup, Prf } from '../../lib/wire/registry.ts'
import { systemEnvironment } from '../../lib/node/environment.ts'
import { seededEnvironment } from '../harness/random.ts'

const BACKENDS = ['node', 'noble'] as const
const FOLDER = '../shared/vectors'
const isThere = existsSync(FOLDER)
const suffix = isThere
  ? ''
  : ' (skipped: the folder with third-party vectors is not beside this one)'
/** The tests of one of our files of vectors: the fields that are used, as hexadecimal digits. */
const load = <Field extends string>(name: string): Record<Field, string>[] =>
  (JSON.parse(readFileSync(`${FOLDER}/${name}`, 'utf8')) as { tests: Record<Field, string>[] })
    .tests

interface WycheproofGroup<Field extends string> {
  ivSize?: number
  tagSize: number
  tests: (Record<Field | 'tcId' | 'result', string> & { flags: readonly string[] })[]
}
const wycheproof = <Field extends string>(file: string): WycheproofGroup<Field>[] =>
  (
    JSON.parse(readFileSync(`${FOLDER}/wycheproof/${file}_test.json`, 'utf8')) as {
      testGroups: WycheproofGroup<Field>[]
    }
  ).testGroups

/** Of the vectors about one way of computing, which noble tests itself, how many are left to it: it is slow. */
const isLeftOut = (backend: string, flags: readonly string[], index: number): boolean =>
  backend === 'noble' &&
  index % 8 !== 0 &&
  (flags.includes('EdgeCaseDoubling') || flags.includes('EdgeCaseMultiplication')) &&
  !flags.includes('LowOrderPublic')

const withVectors = (name: string, run: (t: Tap.Test) => void): void => {
  void t.test(`${name}${suffix}`, { skip: !isThere }, t => {
    run(t as unknown as Tap.Test)
    t.end()
  })
}
// Brevity: only what these tests use of tap.
declare namespace Tap {
  interface Test {
    equal(a: unknown, b: unknown, message?: string): boolean
    ok(a: unknown, message?: string): boolean
    notOk(a: unknown, message?: string): boolean
    fail(message: string): boolean
  }
}

type KdfField =
  | 'nInit'
  | 'nResp'
  | 'spiInit'
  | 'spiResp'
  | 'gir'
  | 'girNew'
  | 'sKeySeed'
  | 'sKeySeedReKey'
  | 'derivedKeyingMaterial'
  | 'derivedKeyingMaterialChild'
  | 'derivedKeyingMaterialDh'

/** Each RFC names its private value in its own way. */
type DhTest = { id: string; group: number } & Partial<
  Record<'i' | 'private_i' | 'ki' | 'KEi_payload' | 'KEr_payload', string>
>

const cipherOf = (algorithm: string, keyOctets: number) =>
  algorithm.startsWith('AES')
    ? { encr: Encr.AesGcm16, keyLength: keyOctets * 8, integ: Integ.None }
    : { encr: Encr.Chacha20Poly1305, keyLength: 0, integ: Integ.None }

/** A number as octets of that length, whatever zeros it is written with. */
const toOctets = (hex: string, length: number): Uint8Array =>
  fromHex(hex.replace(/^0+/, '').padStart(2 * length, '0'))

t.test('both backends make the same HMAC under keys and of data of any length', t => {
  const { Sha1, Sha2_256, Sha2_384, Sha2_512 } = HashAlgorithm
  const octets = (length: number): Uint8Array => {
    const drawn = new Uint8Array(length)
    seededEnvironment(length).randomFill(drawn)
    return drawn
  }
  for (const hash of [Sha1, Sha2_256, Sha2_384, Sha2_512] as const) {
    for (const key of [0, 1, 63, 64, 65, 127, 128, 129, 300].map(octets)) {
      for (const length of [0, 1, 1919, 1920, 1983, 1984, 1985, 5000]) {
        const data = [octets(length), octets(7).subarray(0, length % 8)]
        const made = BACKENDS.map(backend => toHex(computeHmac(backend, hash, key, data)))
        t.equal(made[0], made[1], `hash ${hash}, key ${key.length}, data ${length}`)
      }
    }
  }
  t.end()
})

for (const backend of BACKENDS) {
  t.test(`${backend}: RFC 4231 case 2 and prf+ made of it`, t => {
    const key = new TextEncoder().encode('Jefe')
    const data = new TextEncoder().encode('what do ya want for nothing?')
    const prf = createPrf(backend, Prf.HmacSha2_256)!
    t.equal(
      toHex(prf.compute(key, data)),
      '5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843',
    )
    t.equal(
      toHex(createPrf(backend, Prf.HmacSha2_384)!.compute(key, data)),
      'af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649',
    )
    t.equal(
      toHex(createPrf(backend, Prf.HmacSha2_512)!.compute(key, data)),
      '164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737',
    )
    const stream = prfPlus(prf, key, data, 80)
    const first = prf.compute(key, data, Uint8Array.of(1))
    const second = prf.compute(key, first, data, Uint8Array.of(2))
    t.equal(toHex(stream.subarray(0, 64)), toHex(concat(first, second)))
    t.throws(() => prfPlus(prf, key, data, 32 * 255 + 1))
    t.end()
  })

  withVectors(`${backend}: ESP packets of draft-mcgrew-gcm-test-01 and RFC 7634 appendix A`, t => {
    for (const { id, alg, key, salt, iv, aad, plaintext_with_trailer, ciphertext_and_tag } of load<
      'id' | 'alg' | 'key' | 'salt' | 'iv' | 'aad' | 'plaintext_with_trailer' | 'ciphertext_and_tag'
    >('esp_aead.json')) {
      const plaintext = fromHex(plaintext_with_trailer)
      const cipher = createAead(
        backend,
        cipherOf(alg, key.length / 2),
        fromHex(key + salt),
        new Uint8Array(0),
      )
      const bytes = concat(fromHex(iv), plaintext, new Uint8Array(16))
      cipher.seal(bytes, 8, 8 + plaintext.length, fromHex(aad))
      t.equal(toHex(bytes.subarray(8)), ciphertext_and_tag, id)
      const opened = cipher.open(bytes, 8, 8 + plaintext.length, fromHex(aad))
      t.equal(opened && toHex(opened), plaintext_with_trailer, id)
      t.equal(toHex(bytes.subarray(8)), ciphertext_and_tag, 'the packet stays as it was')
    }
  })

  withVectors(`${backend}: the IKE message of RFC 7634 appendix B`, t => {
    const test = load<'key' | 'salt' | 'message' | 'aad' | 'plaintext_with_pad'>(
      'ike_sk_aead.json',
    )[0]!
    const cipher = createAead(
      backend,
      cipherOf('CHACHA', 32),
      fromHex(test.key + test.salt),
      new Uint8Array(0),
    )
    const bytes = fromHex(test.message)
    const from = test.aad.length / 2 + 8
    const opened = cipher.open(bytes, from, bytes.length - 16, fromHex(test.aad))
    t.equal(opened && toHex(opened), test.plaintext_with_pad)
  })

  withVectors(`${backend}: NIST's IKEv2 key derivation`, t => {
    const test = load<KdfField>('ikev2_kdf_acvp.json')[0]!
    const prf = createPrf(backend, Prf.HmacSha1)!
    const [nInit, nResp, spiInit, spiResp] = (
      ['nInit', 'nResp', 'spiInit', 'spiResp'] as const
    ).map(name => fromHex(test[name])) as [Uint8Array, Uint8Array, Uint8Array, Uint8Array]
    const skeyseed = computeSkeyseed(prf, nInit, nResp, fromHex(test.gir))
    t.equal(toHex(skeyseed), test.sKeySeed)
    const stream = prfPlus(prf, skeyseed, concat(nInit, nResp, spiInit, spiResp), 132)
    t.equal(toHex(stream), test.derivedKeyingMaterial)
    const skD = new Secret(stream.subarray(0, 20))
    const join = (material: ReturnType<typeof deriveChildKeys>) =>
      toHex(
        concat(
          material.initiator.encryption.bytes,
          material.initiator.integrity.bytes,
          material.responder.encryption.bytes,
          material.responder.integrity.bytes,
        ),
      )
    const lengths = { encryption: 46, integrity: 20 }
    t.equal(
      join(deriveChildKeys(prf, skD, nInit, nResp, undefined, lengths)),
      test.derivedKeyingMaterialChild,
    )
    t.equal(
      join(deriveChildKeys(prf, skD, nInit, nResp, fromHex(test.girNew), lengths)),
      test.derivedKeyingMaterialDh,
    )
    t.equal(
      toHex(computeRekeySkeyseed(prf, skD, fromHex(test.girNew), nInit, nResp)),
      test.sKeySeedReKey,
    )
  })

  withVectors(
    `${backend}: Wycheproof AES-GCM and ChaCha20-Poly1305: nothing forged is taken`,
    t => {
      for (const [file, algorithm] of [
        ['aes_gcm', 'AES'],
        ['chacha20_poly1305', 'CHACHA'],
      ] as const) {
        let accepted = 0
        for (const group of wycheproof<'key' | 'iv' | 'aad' | 'msg' | 'ct' | 'tag'>(file)) {
          if (group.ivSize !== 96 || group.tagSize !== 128) continue
          for (const { tcId, key, iv, aad, msg, ct, tag, result } of group.tests) {
            const nonce = fromHex(iv)
            const cipher = createAead(
              backend,
              cipherOf(algorithm, key.length / 2),
              concat(fromHex(key), nonce.subarray(0, 4)),
              new Uint8Array(0),
            )
            const bytes = concat(nonce.subarray(4), fromHex(ct), fromHex(tag))
            const opened = cipher.open(bytes, 8, 8 + ct.length / 2, fromHex(aad))
            const isTaken = opened !== undefined
            if (isTaken !== (result === 'valid')) t.fail(`${file} ${tcId}: ${isTaken}`)
            if (isTaken && toHex(opened) !== msg) t.fail(`${file} ${tcId}: plaintext`)
            if (opened) accepted++
          }
        }
        t.ok(accepted > 30, `${file}: ${accepted} valid ones opened`)
      }
    },
  )

  withVectors(`${backend}: RFC 5903 and RFC 8031 shared secrets and KE payloads`, t => {
    let count = 0
    for (const test of load<'id'>('ike_dh.json') as DhTest[]) {
      const { group } = test
      const privateI = test.i ?? test.private_i ?? test.ki
      const peer =
        test.KEr_payload === undefined ? undefined : fromHex(test.KEr_payload).subarray(8)
      if (privateI === undefined || peer === undefined) continue
      const exchange = createKeyExchange(backend, group, {
        wallClock: () => 0,
        randomFill: bytes => bytes.set(fromHex(privateI.padStart(2 * bytes.length, '0'))),
      })!
      if (test.KEi_payload !== undefined)
        t.equal(toHex(exchange.publicValue), test.KEi_payload.slice(16), test.id)
      const shared = exchange.sharedSecret(peer)
      t.ok(shared !== undefined && JSON.stringify(test).includes(toHex(shared)), test.id)
      count++
    }
    t.ok(count >= 3, `${count} of them`)
  })

  withVectors(`${backend}: Wycheproof X25519 and X448: no exception, no zero secret`, t => {
    for (const [file, group, octets] of [
      ['x25519', KeGroup.X25519, 32],
      ['x448', KeGroup.X448, 56],
    ] as const) {
      for (const { tests } of wycheproof<'private' | 'public' | 'shared'>(file)) {
        for (const [i, test] of tests.entries()) {
          if (isLeftOut(backend, test.flags, i)) continue
          const exchange = createKeyExchange(backend, group, {
            wallClock: () => 0,
            randomFill: bytes => bytes.set(fromHex(test.private)),
          })!
          const shared = exchange.sharedSecret(fromHex(test.public))
          const isZero = /^0*$/.test(test.shared)
          const usable = test.public.length === 2 * octets && !isZero
          if (!usable && shared !== undefined) t.fail(`${file} ${test.tcId}: taken`)
          if (
            usable &&
            (shared === undefined || toHex(shared) !== test.shared) &&
            test.result === 'valid'
          )
            t.fail(`${file} ${test.tcId}`)
        }
      }
    }
    t.ok(true, 'all cases were run')
  })

  withVectors(`${backend}: Wycheproof ECDH: no compressed point, none off the curve`, t => {
    for (const [file, group, octets] of [
      ['ecdh_secp256r1_ecpoint', KeGroup.P256, 32],
      ['ecdh_secp384r1_ecpoint', KeGroup.P384, 48],
      ['ecdh_secp521r1_ecpoint', KeGroup.P521, 66],
    ] as const) {
      let agreed = 0
      const exchanges = new Map<string, KeyExchange>()
      const exchangeOf = (scalar: string): KeyExchange => {
        const made = createKeyExchange(backend, group, {
          wallClock: () => 0,
          randomFill: bytes => bytes.set(toOctets(scalar, bytes.length)),
        })!
        exchanges.set(scalar, made)
        return made
      }
      for (const { tests } of wycheproof<'public' | 'private' | 'shared'>(file)) {
        for (const [i, test] of tests.entries()) {
          const { tcId, public: point, private: scalar, shared, result, flags } = test
          if (isLeftOut(backend, flags, i)) continue
          const exchange = exchanges.get(scalar) ?? exchangeOf(scalar)
          // RFC 5903 §7: x and y alone; the octet before them says how a point is written elsewhere.
          const isPlain = point.startsWith('04') && point.length === 2 + 4 * octets
          const secret = exchange.sharedSecret(fromHex(isPlain ? point.slice(2) : point))
          const isRight = secret !== undefined && toHex(secret) === shared
          if (!isPlain ? secret !== undefined : isRight !== (result !== 'invalid'))
            t.fail(`${file} ${tcId}`)
          if (isRight) agreed++
        }
      }
      t.ok(agreed > 100, `${file}: ${agreed} agree`)
    }
  })

  withVectors(`${backend}: Wycheproof HMAC as PRF and, truncated, as integrity algorithm`, t => {
    for (const [file, id] of [
      ['hmac_sha1', Prf.HmacSha1],
      ['hmac_sha256', Prf.HmacSha2_256],
      ['hmac_sha384', Prf.HmacSha2_384],
      ['hmac_sha512', Prf.HmacSha2_512],
    ] as const) {
      const prf = createPrf(backend, id)!
      let valid = 0
      for (const { tagSize, tests } of wycheproof<'key' | 'msg' | 'tag'>(file)) {
        for (const { tcId, key, msg, tag, result } of tests) {
          const computed = prf.compute(fromHex(key), fromHex(msg)).subarray(0, tagSize / 8)
          if (equal(computed, fromHex(tag)) !== (result === 'valid')) t.fail(`${file} ${tcId}`)
          if (result === 'valid') valid++
        }
      }
      t.ok(valid > 50, `${file}: ${valid} valid ones`)
    }
  })

  t.test(
    `${backend}: a peer's value that is not exactly what the RFC describes gives no secret`,
    t => {
      for (const group of [
        KeGroup.X25519,
        KeGroup.X448,
        KeGroup.P256,
        KeGroup.P384,
        KeGroup.P521,
        KeGroup.Modp2048,
      ]) {
        const ours = createKeyExchange(backend, group, seededEnvironment(group))!
        const theirs = createKeyExchange(backend, group, seededEnvironment(group + 100))!
        const length = publicValueLength(group)
        t.equal(ours.publicValue.length, length)
        t.equal(
          toHex(ours.sharedSecret(theirs.publicValue)!),
          toHex(theirs.sharedSecret(ours.publicValue)!),
          `${group}`,
        )
        t.equal(ours.sharedSecret(new Uint8Array(length)), undefined, 'zero')
        t.equal(ours.sharedSecret(theirs.publicValue.subarray(1)), undefined, 'short')
        t.equal(ours.sharedSecret(concat(theirs.publicValue, Uint8Array.of(0))), undefined, 'long')
        t.equal(ours.sharedSecret(new Uint8Array(0)), undefined, 'empty')
        if (group >= KeGroup.P256 && group <= KeGroup.P521) {
          const offCurve = theirs.publicValue.slice()
          offCurve[offCurve.length - 1]! ^= 1
          t.equal(ours.sharedSecret(offCurve), undefined, 'not on the curve')
        }
        ours.wipe()
      }
      const modp = createKeyExchange(backend, KeGroup.Modp2048, seededEnvironment(1))!
      const one = new Uint8Array(256)
      one[255] = 1
      t.equal(modp.sharedSecret(one), undefined, 'one')
      t.equal(modp.sharedSecret(new Uint8Array(256).fill(255)), undefined, 'above the prime')
      t.equal(createKeyExchange(backend, 1025, seededEnvironment(1)), undefined, 'an unknown group')
      t.end()
    },
  )
}

t.test(
  'keys of the system and keys that are drawn have secrets in common in every group of MODP',
  t => {
    for (const group of [KeGroup.Modp1024, KeGroup.Modp2048, KeGroup.Modp3072, KeGroup.Modp4096]) {
      const ofSystem = createKeyExchange('node', group, systemEnvironment)!
      const another = createKeyExchange('node', group, systemEnvironment)!
      const drawn = createKeyExchange('node', group, seededEnvironment(group))!
      t.notSame(ofSystem.publicValue, another.publicValue)
      t.equal(ofSystem.publicValue.length, publicValueLength(group))
      for (const [one, other] of [
        [ofSystem, another],
        [ofSystem, drawn],
      ] as const) {
        const secret = one.sharedSecret(other.publicValue)!
        t.equal(secret.length, publicValueLength(group))
        t.equal(toHex(secret), toHex(other.sharedSecret(one.publicValue)!), `${group}`)
      }
      const largest = new Uint8Array(publicValueLength(group)).fill(255)
      t.equal(ofSystem.sharedSecret(largest), undefined, 'above the prime')
      const again = createKeyExchange('node', group, seededEnvironment(group))!
      t.strictSame(again.publicValue, drawn.publicValue, 'the same is drawn')
      if (group === KeGroup.Modp1024) continue
      ofSystem.wipe()
      t.equal(ofSystem.sharedSecret(drawn.publicValue), undefined, 'wiped')
    }
    t.end()
  },
)

t.test('a secret does not print', t => {
  const secret = new Secret(Uint8Array.of(1, 2, 3))
  t.equal(`${secret} ${JSON.stringify({ secret })}`, '[secret] {"secret":"[secret]"}')
  secret.wipe()
  t.equal(secret.length, 0)
  t.end()
})
