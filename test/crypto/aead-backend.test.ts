/** The option `aead`: what a program may give in the place of our own ciphers, and what is refused. */
import { createCipheriv, createDecipheriv } from 'node:crypto'
import { once } from 'node:events'
import t from 'tap'
import type { AeadBackend, AeadCipher, AeadName } from '../../lib/base/aead-backend.ts'
import { AEAD_NAMES } from '../../lib/base/aead-backend.ts'
import { NOBLE_AEADS, NODE_AEADS, SaltedAead } from '../../lib/crypto/aead.ts'
import { backendProblem } from '../../lib/crypto/aead-proof.ts'
import { createSecureServer, createSecureSocket } from '../../lib/index.ts'
import { parsePolicy } from '../../lib/policy/options.ts'

const TAG = 16

/** Calls of the one below. */
const calls = { created: 0, sealed: 0, opened: 0, destroyed: 0 }

/** In place, unlike our own, and by another way to OpenSSL. */
class InPlace implements AeadCipher {
  readonly #key: Uint8Array
  readonly #algorithm: 'aes-256-gcm'

  constructor(key: Uint8Array, algorithm: string) {
    this.#key = key.slice()
    this.#algorithm = algorithm as 'aes-256-gcm'
    calls.created++
  }

  seal(bytes: Uint8Array, from: number, to: number, nonce: Uint8Array, aad: Uint8Array): void {
    calls.sealed++
    const cipher = createCipheriv(this.#algorithm, this.#key, nonce, { authTagLength: TAG })
    cipher.setAAD(aad)
    bytes.set(cipher.update(bytes.subarray(from, to)), from)
    cipher.final()
    bytes.set(cipher.getAuthTag(), to)
  }

  open(
    bytes: Uint8Array,
    from: number,
    to: number,
    nonce: Uint8Array,
    aad: Uint8Array,
  ): Uint8Array | undefined {
    calls.opened++
    const cipher = createDecipheriv(this.#algorithm, this.#key, nonce, { authTagLength: TAG })
    cipher.setAAD(aad)
    cipher.setAuthTag(bytes.subarray(to, to + TAG))
    bytes.set(cipher.update(bytes.subarray(from, to)), from)
    cipher.final()
    return bytes.subarray(from, to)
  }

  destroy(): void {
    calls.destroyed++
    this.#key.fill(0)
  }
}

const inPlace = (algorithm: string): AeadBackend => ({
  name: 'a backend of a test',
  create: key => new InPlace(key, algorithm),
})

t.test('our own give the known answers', t => {
  for (const name of AEAD_NAMES) {
    t.equal(backendProblem(name, NODE_AEADS[name]), undefined, `node ${name}`)
    t.equal(backendProblem(name, NOBLE_AEADS[name]), undefined, `noble ${name}`)
  }
  t.end()
})

t.test(
  'what was prepared for one packet is used once, for that one, and only where it is right',
  t => {
    const aadOf = (number: number): Buffer => {
      const octets = Buffer.alloc(8, 's')
      octets.writeUInt32BE(number % 2 ** 32, 4)
      return octets
    }
    const packet = (iv: number): Buffer => {
      const octets = Buffer.alloc(8 + 20 + TAG, 'p')
      octets.writeBigUInt64BE(BigInt(iv))
      return octets
    }
    // A lost one, one that comes again, and the carry into the next octets; then IVs that go on where sequence numbers do
    // not, and the other way round.
    const numbers = [1, 2, 3, 5, 4, 4, 0xffff, 0x1_0000, 0xffff_ffff, 0x1_0000_0000, 7, 8]
    const pairs = [
      ...numbers.map(number => [number, number]),
      [9, 12],
      [10, 13],
      [12, 14],
      [13, 15],
    ]
    for (const name of AEAD_NAMES) {
      const key = new Uint8Array(name === 'aes128gcm16' ? 20 : name === 'aes192gcm16' ? 28 : 36)
      const [plain, early] = [0, 1].map(() => new SaltedAead(NODE_AEADS[name], key))
      const [opener, forgetful] = [0, 1].map(() => new SaltedAead(NODE_AEADS[name], key))
      let last = aadOf(0)
      for (const [at, [number, sequence]] of pairs.entries()) {
        const aad = aadOf(sequence!)
        const [expected, sealed] = [packet(number!), packet(number!)]
        plain!.seal(expected, 8, 28, aad)
        early!.prepare('seal', last)
        early!.seal(sealed, 8, 28, aad)
        t.strictSame(sealed, expected, `${name} ${number}`)
        for (const receiver of [opener!, forgetful!]) {
          receiver.prepare('open', last)
          receiver.prepare('open', last)
          if (receiver === forgetful) receiver.forget()
          if (at === 2) {
            const forged = Buffer.from(sealed)
            forged[10]! ^= 1
            t.equal(receiver.open(forged, 8, 28, aad), undefined)
          }
          const opened = receiver.open(Buffer.from(sealed), 8, 28, aad)
          t.strictSame(Buffer.from(opened!), Buffer.alloc(20, 'p'))
        }
        last = aad
      }
      for (const aead of [plain, early, opener, forgetful]) aead!.wipe()
    }
    t.end()
  },
)

t.test('one that is right runs both ends, and its keys are overwritten', async t => {
  const backend = inPlace('aes-256-gcm')
  const options = {
    psk: 'a pre-shared key of a test',
    esp: 'aes256gcm16',
    ike: 'aes256gcm16-prfsha256-x25519',
    aead: { aes256gcm16: backend },
  }
  const server = createSecureServer({ ...options, ikePort: 0 }, socket => socket.pipe(socket))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  const socket = createSecureSocket({
    ...options,
    host: '127.0.0.1',
    port,
    ikePort: server.ikePort,
  })
  // Large enough that a plaintext is handed out where it lies.
  const sent = Buffer.from(Array.from({ length: 300_000 }, (_, i) => (i * 31) >>> 3))
  socket.end(sent)
  const got: Buffer[] = []
  for await (const chunk of socket) {
    if (got.length === 0) {
      t.equal(socket.session!.info.children[0]!.backend, 'a backend of a test')
    }
    got.push(chunk as Buffer)
  }
  t.ok(Buffer.concat(got).equals(sent), 'the octets come back')
  t.ok(calls.sealed > 10 && calls.opened > 10)
  server.close()
  await once(server, 'close')
  // Each end has a cipher for each direction of IKE and of ESP; the proof, once in a process, has one.
  t.equal(calls.created, 9)
  t.equal(calls.destroyed, 9)
})

t.test('the default says what it is', async t => {
  const options = { psk: 'a pre-shared key of a test', crypto: 'noble' } as const
  let ofServer: string | undefined
  const server = createSecureServer({ ...options, crypto: 'node', ikePort: 0 }, socket => {
    ofServer = socket.session!.info.children[0]!.backend
    socket.end('x')
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  const socket = createSecureSocket({
    ...options,
    host: '127.0.0.1',
    port,
    ikePort: server.ikePort,
  })
  await once(socket, 'data')
  t.equal(socket.session!.info.children[0]!.backend, 'noble')
  t.equal(ofServer, 'node:crypto')
  socket.destroy()
  server.close()
  await once(server, 'close')
})

/** A right one with one method in the place of its own. */
const wrong = (change: (right: AeadCipher) => Partial<AeadCipher>): AeadBackend => ({
  name: 'wrong',
  create: key => {
    const right = new InPlace(key, 'aes-256-gcm')
    const own: AeadCipher = {
      seal: (...facts) => right.seal(...facts),
      open: (...facts) => right.open(...facts),
      destroy: () => right.destroy(),
    }
    return { ...own, ...change(right) }
  },
})

const WRONG: readonly (readonly [string, AeadBackend, RegExp])[] = [
  ['another cipher', inPlace('chacha20-poly1305'), /its tag is wrong \(2 octets\)/],
  ['seal() does nothing', wrong(() => ({ seal: () => undefined })), /its tag is wrong/],
  [
    'seal() writes behind the tag',
    wrong(right => ({
      seal: (bytes, from, to, ...more) => {
        right.seal(bytes, from, to, ...more)
        bytes[to + TAG] = 0
      },
    })),
    /seal\(\) changes octets that are not/,
  ],
  [
    'open() takes everything',
    wrong(right => ({
      open: (bytes, from, to, ...more) => {
        try {
          return right.open(bytes, from, to, ...more)
        } catch {
          return bytes.subarray(from, to)
        }
      },
    })),
    /open\(\) takes a forgery/,
  ],
  [
    'open() checks half of the tag',
    wrong(right => ({
      open: (bytes, from, to, nonce, aad) => {
        const copied = bytes.slice(from, to + TAG)
        right.seal(copied, 0, to - from, nonce, aad)
        right.seal(copied, 0, to - from, nonce, aad)
        const isRight = bytes.slice(to, to + 8).every((octet, i) => copied[to - from + i] === octet)
        return isRight ? copied.subarray(0, to - from) : undefined
      },
    })),
    /open\(\)/,
  ],
  ['open() refuses everything', wrong(() => ({ open: () => undefined })), /another plaintext/],
  [
    'open() writes before the packet',
    wrong(right => ({
      open: (bytes, from, ...more) => {
        const plaintext = right.open(bytes, from, ...more)
        bytes[from - 1] = 0
        return plaintext
      },
    })),
    /open\(\) changes octets that are not/,
  ],
  [
    'the nonce counts up',
    wrong(right => ({
      seal: (bytes, from, to, nonce, aad) => {
        right.seal(bytes, from, to, nonce, aad)
        nonce[11]!++
      },
      open: (bytes, from, to, nonce, aad) => {
        nonce[11]!--
        return right.open(bytes, from, to, nonce, aad)
      },
    })),
    /seal\(\) changes octets that are not/,
  ],
  [
    'it keeps the key that it was given',
    {
      name: 'wrong',
      create: key => {
        const made: AeadCipher[] = []
        const late = (): AeadCipher => (made[0] ??= new InPlace(key, 'aes-256-gcm'))
        return {
          seal: (...facts) => late().seal(...facts),
          open: (...facts) => late().open(...facts),
          destroy: () => undefined,
        }
      },
    },
    /its tag is wrong/,
  ],
  [
    'create() throws',
    {
      name: 'wrong',
      create: () => {
        throw new Error('no such cipher')
      },
    },
    /it throws \(no such cipher\)/,
  ],
]

t.test('one that is wrong is refused at once, by its name and with what is wrong', t => {
  for (const [what, backend, words] of WRONG) {
    t.throws(
      () => createSecureServer({ psk: 'a key', aead: { aes256gcm16: backend } }),
      { name: 'OptionError', option: 'aead.aes256gcm16', message: words },
      what,
    )
    t.throws(() => parsePolicy({ aead: { aes256gcm16: backend } }), {
      message: /"aead\.aes256gcm16" has a backend, .*(wrong|a backend of a test)/,
    })
  }
  t.end()
})

t.test('what is none at all is refused', t => {
  for (const aead of [1, 'sodium', null, { aes256gcm16: {} }, { chacha20poly1305: null }]) {
    t.throws(() => parsePolicy({ aead }), { name: 'OptionError', message: /"aead/ })
  }
  t.throws(() => parsePolicy({ aead: { aes256gcm16: { name: 'x', create: 1 } } }), {
    message: /a name and create\(key\)/,
  })
  t.throws(() => parsePolicy({ aead: { aes256cbc: inPlace('aes-256-cbc') } }), {
    message: /Unknown option "aead\.aes256cbc"/,
  })
  t.end()
})

t.test('the proof is asked for once for each cipher', t => {
  const backend = inPlace('aes-256-gcm')
  const before = calls.created
  const names: AeadName[] = ['aes256gcm16', 'aes256gcm16']
  for (const name of names) t.equal(backendProblem(name, backend), undefined)
  t.equal(calls.created, before + 1)
  t.match(backendProblem('chacha20poly1305', backend), /wrong/)
  t.end()
})
