/** Signatures through our own interface, on both backends. Files of other projects are read where they lie. */
import { generateKeyPairSync, sign } from 'node:crypto'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import t from 'tap'
import { concat, fromHex, toHex } from '../../lib/base/bytes.ts'
import { bitString, integer, NULL, oid, sequence } from '../../lib/base/der-writer.ts'
import { readPrivateKey } from '../../lib/crypto/private-key.ts'
import {
  canVerify,
  findAlgorithm,
  readPublicKey,
  SIGNATURE_ALGORITHMS,
  verify,
  verifyRawEcdsa,
  type SignatureAlgorithm,
} from '../../lib/crypto/signature.ts'

const BACKENDS = ['node', 'noble'] as const
const FOLDER = '../shared/vectors/wycheproof'
const isThere = existsSync(FOLDER)
const suffix = isThere
  ? ''
  : ' (skipped: the folder with third-party vectors is not beside this one)'
const files = isThere ? readdirSync(FOLDER) : []

const byName = (name: string): SignatureAlgorithm =>
  SIGNATURE_ALGORITHMS.find(algorithm => algorithm.name === name)!
const message = new TextEncoder().encode('what is signed')
const spkiOf = (publicKey: { export(options: { format: 'der'; type: 'spki' }): Buffer }) =>
  new Uint8Array(publicKey.export({ format: 'der', type: 'spki' }))

interface Group {
  sha?: string
  mgfSha?: string
  sLen?: number
  publicKey: { pk?: string }
  publicKeyDer: string
  tests: { tcId: number; msg: string; sig: string; result: string; flags: string[] }[]
}

const groupsOf = (file: string): Group[] =>
  (JSON.parse(readFileSync(`${FOLDER}/${file}`, 'utf8')) as { testGroups: Group[] }).testGroups

/** The algorithm of ours that a group is about; undefined when there is none. */
const algorithmOf = (
  file: string,
  { sha, mgfSha, sLen }: Group,
): SignatureAlgorithm | undefined => {
  if (file.startsWith('ed25519')) return byName('Ed25519')
  if (file.startsWith('ed448')) return byName('Ed448')
  if (file.startsWith('ecdsa')) return byName(`ECDSA with ${sha}`)
  if (file.startsWith('rsa_signature')) return byName(`RSA with ${sha}`)
  const length = Number(sha?.slice(4)) / 8
  return mgfSha === sha && sLen === length ? byName(`RSASSA-PSS with ${sha}`) : undefined
}

for (const backend of BACKENDS) {
  for (const [family, pattern, least] of [
    // noble is slow; the DER of a signature is read before the backends part.
    ['ECDSA', backend === 'noble' ? /^ecdsa_secp.*(p1363|384r1_sha256)/ : /^ecdsa_secp/, 500],
    ['EdDSA', /^ed(25519|448)/, 100],
    ['RSA PKCS#1 v1.5', /^rsa_signature/, 60],
    ['RSASSA-PSS', /^rsa_pss/, 100],
  ] as const) {
    void t.test(
      `${backend}: Wycheproof ${family}: nothing forged is taken${suffix}`,
      { skip: !isThere },
      t => {
        let accepted = 0
        let refusedValid = 0
        for (const file of files.filter(file => pattern.test(file))) {
          for (const group of groupsOf(file)) {
            const algorithm = algorithmOf(file, group)
            const key = readPublicKey(fromHex(group.publicKeyDer))
            for (const [i, { tcId, msg, sig, result, flags }] of group.tests.entries()) {
              // Hashes with zeros in odd places: noble, which is slow, tests its arithmetic itself.
              if (backend === 'noble' && i % 4 !== 0 && flags.includes('SpecialCaseHash')) continue
              const isTaken =
                algorithm !== undefined &&
                key !== undefined &&
                (file.includes('p1363')
                  ? verifyRawEcdsa(
                      backend,
                      algorithm.hash as never,
                      key,
                      fromHex(msg),
                      fromHex(sig),
                    )
                  : verify(backend, algorithm, key, fromHex(msg), fromHex(sig)))
              if (isTaken && result === 'invalid') t.fail(`${file} ${tcId}: taken`)
              if (isTaken) accepted++
              if (!isTaken && result === 'valid' && algorithm !== undefined) {
                refusedValid++
                if (key !== undefined) t.fail(`${file} ${tcId}: refused`)
              }
            }
          }
        }
        t.ok(accepted >= least, `${accepted} valid ones taken`)
        t.equal(refusedValid, 0, 'no valid one refused')
        t.end()
      },
    )
  }

  void t.test(
    `${backend}: Wycheproof keys on curves we do not have are refused${suffix}`,
    { skip: !isThere },
    t => {
      for (const file of files.filter(file => file.startsWith('ecdsa_brainpool'))) {
        t.equal(readPublicKey(fromHex(groupsOf(file)[0]!.publicKeyDer)), undefined, file)
      }
      t.end()
    },
  )

  t.test(`${backend}: a signature of node:crypto is taken, and not with a bit changed`, t => {
    const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 })
    const p521 = generateKeyPairSync('ec', { namedCurve: 'P-521' })
    const ed448 = generateKeyPairSync('ed448')
    const ed25519 = generateKeyPairSync('ed25519')
    for (const [name, pair, hash, padding] of [
      ['RSA with SHA-384', rsa, 'sha384', 1],
      ['RSASSA-PSS with SHA-512', rsa, 'sha512', 6],
      ['ECDSA with SHA-256', p521, 'sha256', undefined],
      ['Ed25519', ed25519, null, undefined],
      ['Ed448', ed448, null, undefined],
    ] as const) {
      const options = {
        key: pair.privateKey,
        ...(padding === 6 ? { padding, saltLength: 64 } : {}),
      }
      const signature = new Uint8Array(sign(hash, message, options))
      const key = readPublicKey(spkiOf(pair.publicKey))!
      const algorithm = byName(name)
      t.ok(verify(backend, algorithm, key, message, signature), name)
      t.notOk(verify(backend, algorithm, key, message.subarray(1), signature), name)
      for (const at of [0, 5, signature.length - 1]) {
        const changed = signature.slice()
        changed[at]! ^= 1
        t.notOk(verify(backend, algorithm, key, message, changed), `${name}, octet ${at}`)
      }
      t.notOk(verify(backend, algorithm, key, message, concat(signature, Uint8Array.of(0))))
      for (let length = 0; length < signature.length; length++) {
        if (verify(backend, algorithm, key, message, signature.subarray(0, length)))
          t.fail(`${name}: ${length} octets of a signature are taken`)
      }
      for (const other of SIGNATURE_ALGORITHMS) {
        if (other !== algorithm && verify(backend, other, key, message, signature))
          t.fail(`a signature of ${name} is taken as one of ${other.name}`)
      }
    }
    t.end()
  })

  t.test(`${backend}: zeros, and numbers as large as the order, are no ECDSA signature`, t => {
    const { publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const key = readPublicKey(spkiOf(publicKey))!
    const order = fromHex('ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551')
    const one = Uint8Array.of(1)
    for (const r of [new Uint8Array(1), one, order]) {
      for (const s of [new Uint8Array(1), one, order]) {
        const pad = (value: Uint8Array) => concat(new Uint8Array(32 - value.length), value)
        t.notOk(verifyRawEcdsa(backend, 'sha256', key, message, concat(pad(r), pad(s))))
        const encoded = sequence(integer(r), integer(s))
        t.notOk(verify(backend, byName('ECDSA with SHA-256'), key, message, encoded))
      }
    }
    t.notOk(verifyRawEcdsa(backend, 'sha256', key, message, new Uint8Array(0)))
    t.notOk(verifyRawEcdsa(backend, 'sha256', key, message, new Uint8Array(96)))
    t.end()
  })
}

t.test('identifiers are those of RFC 7427 appendix A and RFC 8420 appendix A', t => {
  for (const [name, identifier] of [
    ['RSA with SHA-256', '300d06092a864886f70d01010b0500'],
    ['RSA with SHA-384', '300d06092a864886f70d01010c0500'],
    ['RSA with SHA-512', '300d06092a864886f70d01010d0500'],
    ['ECDSA with SHA-256', '300a06082a8648ce3d040302'],
    ['ECDSA with SHA-384', '300a06082a8648ce3d040303'],
    ['ECDSA with SHA-512', '300a06082a8648ce3d040304'],
    [
      'RSASSA-PSS with SHA-256',
      '304606092a864886f70d01010a3039a00f300d06096086480165030402010500a11c301a06092a864886f70d010108300d06096086480165030402010500a203020120a303020101',
    ],
    ['Ed25519', '300506032b6570'],
    ['Ed448', '300506032b6571'],
  ] as const) {
    t.equal(findAlgorithm(fromHex(identifier))?.name, name)
  }
  for (const algorithm of SIGNATURE_ALGORITHMS) {
    t.equal(findAlgorithm(algorithm.identifier), algorithm, algorithm.name)
  }
  t.end()
})

t.test('an identifier that differs in one bit or in length is another or none', t => {
  for (const { identifier, name } of SIGNATURE_ALGORITHMS) {
    for (let bit = 0; bit < identifier.length * 8; bit++) {
      const changed = identifier.slice()
      changed[bit >>> 3]! ^= 1 << (bit & 7)
      const found = findAlgorithm(changed)
      if (found?.name === name) t.fail(`${name}: bit ${bit}`)
    }
    t.equal(findAlgorithm(concat(identifier, Uint8Array.of(0))), undefined)
    t.equal(findAlgorithm(identifier.subarray(0, -1)), undefined)
  }
  for (const [what, identifier] of [
    ['SHA-1 with RSA', '300d06092a864886f70d0101050500'],
    ['ECDSA with SHA-1', '300906072a8648ce3d0401'],
    ['RSASSA-PSS with empty parameters', '300d06092a864886f70d01010a3000'],
    ['RSA without parameters', '300b06092a864886f70d01010b'],
    ['nothing', ''],
  ] as const) {
    t.equal(findAlgorithm(fromHex(identifier)), undefined, what)
  }
  t.equal(findAlgorithm(new Uint8Array(65_536)), undefined)
  t.end()
})

// --- keys ---

const RSA_IDENTIFIER = sequence(oid('1.2.840.113549.1.1.1'), NULL)
const rsaKey = (modulus: Uint8Array, exponent: Uint8Array, identifier = RSA_IDENTIFIER) =>
  sequence(identifier, bitString(sequence(integer(modulus), integer(exponent))))
const modulus = (bits: number): Uint8Array => {
  const octets = new Uint8Array(bits / 8).fill(0xb5)
  return octets
}
const F4 = Uint8Array.of(1, 0, 1)

t.test('RSA keys outside the limits are refused', t => {
  t.same(
    [2048, 3072, 4096, 8192].map(bits => readPublicKey(rsaKey(modulus(bits), F4))?.bits),
    [2048, 3072, 4096, 8192],
  )
  t.equal(readPublicKey(rsaKey(modulus(1024), F4)), undefined, 'too short')
  t.equal(readPublicKey(rsaKey(modulus(1024), F4), { minimumRsaBits: 1024 })?.bits, 1024)
  t.equal(readPublicKey(rsaKey(modulus(8200), F4)), undefined, 'too long')
  const even = modulus(2048)
  even[255] = 2
  t.equal(readPublicKey(rsaKey(even, F4)), undefined, 'even modulus')
  for (const [what, exponent] of [
    ['0', Uint8Array.of(0)],
    ['1', Uint8Array.of(1)],
    ['2', Uint8Array.of(2)],
    ['65536', Uint8Array.of(1, 0, 0)],
    ['2^32+1', Uint8Array.of(1, 0, 0, 0, 1)],
    ['2047 bits', modulus(2040)],
  ] as const) {
    t.equal(readPublicKey(rsaKey(modulus(2048), exponent)), undefined, `exponent ${what}`)
  }
  t.ok(readPublicKey(rsaKey(modulus(2048), Uint8Array.of(3))))
  t.ok(readPublicKey(rsaKey(modulus(2048), Uint8Array.of(255, 255, 255, 255))))
  t.end()
})

t.test('a key of type RSASSA-PSS is for its own parameters alone', t => {
  const { publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const plain = spkiOf(publicKey)
  const encoded = plain.subarray(24)
  const pss256 = byName('RSASSA-PSS with SHA-256')
  const typed = readPublicKey(sequence(pss256.identifier, bitString(encoded)))!
  const any = readPublicKey(sequence(sequence(oid('1.2.840.113549.1.1.10')), bitString(encoded)))!
  const names = (key: typeof typed) =>
    SIGNATURE_ALGORITHMS.filter(algorithm => canVerify(algorithm, key)).map(({ name }) => name)
  t.same(names(typed), ['RSASSA-PSS with SHA-256'])
  t.same(
    names(any),
    [256, 384, 512].map(bits => `RSASSA-PSS with SHA-${bits}`),
  )
  t.equal(names(readPublicKey(plain)!).length, 6)
  t.end()
})

t.test('a key of an RSASSA-PSS type with parameters of nobody is refused', t => {
  const odd = sequence(oid('1.2.840.113549.1.1.10'), sequence())
  t.equal(readPublicKey(rsaKey(modulus(2048), F4, odd)), undefined)
  t.equal(
    readPublicKey(rsaKey(modulus(2048), F4, sequence(oid('1.2.840.113549.1.1.1')))),
    undefined,
  )
  t.end()
})

t.test(
  'curves by parameters, unknown curves, compressed points and points elsewhere are refused',
  t => {
    const { publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const spki = spkiOf(publicKey)
    t.match(readPublicKey(spki), { kind: 'ec', curve: 'P-256', bits: 256 })
    const explicit = generateKeyPairSync('ec', { namedCurve: 'P-256', paramEncoding: 'explicit' })
    t.equal(readPublicKey(spkiOf(explicit.publicKey)), undefined, 'explicit parameters')
    const koblitz = generateKeyPairSync('ec', { namedCurve: 'secp256k1' })
    t.equal(readPublicKey(spkiOf(koblitz.publicKey)), undefined, 'another curve')
    const identifier = spki.subarray(2, 23)
    const point = spki.subarray(26)
    const compressed = concat(Uint8Array.of(2 + (point[64]! & 1)), point.subarray(1, 33))
    t.equal(readPublicKey(sequence(identifier, bitString(compressed))), undefined, 'compressed')
    const elsewhere = point.slice()
    elsewhere[64]! ^= 1
    t.equal(readPublicKey(sequence(identifier, bitString(elsewhere))), undefined, 'not on it')
    t.equal(readPublicKey(sequence(identifier, bitString(Uint8Array.of(0)))), undefined, 'infinity')
    t.end()
  },
)

t.test('points of small order on the Edwards curves are refused', t => {
  const ed25519 = sequence(oid('1.3.101.112'))
  const ed448 = sequence(oid('1.3.101.113'))
  const read = (identifier: Uint8Array, point: Uint8Array) =>
    readPublicKey(sequence(identifier, bitString(point)))
  const one = Uint8Array.from({ length: 57 }, (_, i) => (i === 0 ? 1 : 0))
  t.equal(read(ed25519, one.subarray(0, 32)), undefined, 'the neutral element')
  t.equal(read(ed25519, new Uint8Array(32)), undefined, 'order 4')
  t.equal(read(ed25519, new Uint8Array(32).fill(0xff)), undefined, 'above the prime')
  t.equal(read(ed448, one), undefined, 'the neutral element')
  t.equal(read(ed448, new Uint8Array(57)), undefined, 'order 4')
  t.equal(read(ed25519, new Uint8Array(31)), undefined, 'short')
  t.end()
})

t.test('a truncated key, or one with trailing octets, is refused', t => {
  for (const pair of [
    generateKeyPairSync('rsa', { modulusLength: 2048 }),
    generateKeyPairSync('ec', { namedCurve: 'P-384' }),
    generateKeyPairSync('ed25519'),
    generateKeyPairSync('ed448'),
  ]) {
    const spki = spkiOf(pair.publicKey)
    t.equal(toHex(readPublicKey(spki)!.spki), toHex(spki))
    for (let length = 0; length < spki.length; length++) {
      if (readPublicKey(spki.subarray(0, length)) !== undefined) t.fail(`${length} octets`)
    }
    t.equal(readPublicKey(concat(spki, Uint8Array.of(0))), undefined)
  }
  t.end()
})

t.test('every single-bit change of a key is read or refused without an exception', t => {
  const spki = spkiOf(generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey)
  let read = 0
  for (let bit = 0; bit < spki.length * 8; bit++) {
    const changed = spki.slice()
    changed[bit >>> 3]! ^= 1 << (bit & 7)
    if (readPublicKey(changed) !== undefined) read++
  }
  t.equal(read, 0, 'a changed point is not on the curve')
  t.end()
})

t.test(
  'a key that was read is known by its octets, and of those read long ago nothing is kept',
  t => {
    const fresh = (): Uint8Array =>
      spkiOf(generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey)
    const first = fresh()
    const key = readPublicKey(first)
    t.ok(key)
    t.equal(readPublicKey(first.slice()), key)
    for (let i = 0; i < 255; i++) readPublicKey(fresh())
    t.equal(readPublicKey(first), key)
    for (let i = 0; i < 255; i++) readPublicKey(fresh())
    t.equal(readPublicKey(first), key, 'the one used last stays longest')
    for (let i = 0; i < 256; i++) readPublicKey(fresh())
    t.not(readPublicKey(first), key)
    t.end()
  },
)

t.test(
  'a key that one limit allows is not known to another, and octets that are no key are not kept',
  t => {
    const { publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
    const spki = spkiOf(publicKey)
    t.ok(readPublicKey(spki))
    t.equal(readPublicKey(spki, { minimumRsaBits: 3072 }), undefined)
    t.ok(readPublicKey(spki, { minimumRsaBits: 1024 }))
    const ec = generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey
    const wrong = spkiOf(ec)
    wrong[wrong.length - 1]! ^= 1
    for (let i = 0; i < 2; i++) t.equal(readPublicKey(wrong), undefined)
    t.end()
  },
)

t.test('a private key in use is not decoded again, and only for those who can read it', t => {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const format = { format: 'pem', type: 'pkcs8' } as const
  const plain = privateKey.export(format)
  const locked = privateKey.export({ ...format, cipher: 'aes-128-cbc', passphrase: 'sesame' })
  const first = readPrivateKey(plain, undefined)
  t.ok(first)
  t.equal(readPrivateKey(plain, undefined), first)
  t.not(readPrivateKey(new Uint8Array(Buffer.from(plain)), undefined), undefined)
  const unlocked = readPrivateKey(locked, 'sesame')
  t.ok(unlocked)
  t.equal(readPrivateKey(locked, 'sesame'), unlocked)
  for (const wrong of [undefined, '', 'wrong', 'sesam', 'sesame ', new Uint8Array(6)]) {
    t.equal(readPrivateKey(locked, wrong), undefined)
  }
  t.end()
})
