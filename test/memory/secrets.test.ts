/** What is left of keys in this process once everything is closed and collected: nothing (RFC 7296 §5). */
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createRequire } from 'node:module'
import { setTimeout as sleep } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import t from 'tap'
import { ffiProblem } from '../../lib/base/ffi.ts'
import type { KeyLogEntry } from '../../lib/base/trace.ts'
import {
  createSecureServer,
  createSecureSocket,
  type SecureSocketOptions,
} from '../../lib/index.ts'
import { sodiumAead, type Sodium } from '../../lib/node/sodium-aead.ts'
import { IkePair } from '../harness/ike-pair.ts'
import { canScan, copiesOf, masked, type Masked } from './scan.ts'

setFlagsFromString('--expose-gc')
const gc = runInNewContext('gc') as () => void

const skip = !canScan
const suffix = skip ? ' (skipped: there is no /proc/self/mem here)' : ''

const collect = async (): Promise<void> => {
  for (let i = 0; i < 6; i++) {
    gc()
    await sleep(30)
  }
}

const NAMES = ['skEi', 'skEr', 'skAi', 'skAr', 'encryptionKey', 'integrityKey']

interface Found {
  readonly name: string
  readonly key: Masked
}

/** Names of those of which there are copies. */
const left = (found: readonly Found[]): readonly string[] => {
  const counts = copiesOf(found.map(({ key }) => key))
  return found.filter((_, i) => counts[i]! > 0).map(({ name }) => name)
}

/** A client and a server from beginning to end; the keys of all SAs that they had. */
const live = async (
  options: SecureSocketOptions,
  isRekeyed: boolean,
): Promise<readonly Found[]> => {
  const found: Found[] = []
  const keyLog = (entry: KeyLogEntry): void => {
    for (const name of NAMES) {
      const octets = Reflect.get(entry, name) as Uint8Array | undefined
      if (octets !== undefined && octets.length >= 16) found.push({ name, key: masked(octets) })
    }
  }
  const server = createSecureServer({ ...options, ikePort: 0, keyLog }, socket => {
    socket.on('error', () => undefined)
    socket.pipe(socket)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  const { ikePort } = server
  const socket = createSecureSocket({ ...options, host: '127.0.0.1', port, ikePort, keyLog })
  socket.on('error', () => undefined)
  socket.resume()
  await once(socket, 'connect')
  const count = (name: string): number => found.filter(each => each.name === name).length
  const isDone = (): boolean => count('skEi') >= 4 && count('encryptionKey') >= 12
  for (let i = 0; i < 3 || (isRekeyed && !isDone() && i < 200); i++) {
    socket.write(randomBytes(20_000))
    if (isRekeyed && i % 2 === 0) socket.session!.rekeyIke()
    else if (isRekeyed) socket.session!.rekeyChild()
    await sleep(50)
  }
  socket.session!.close()
  socket.destroy()
  server.close()
  await once(server, 'close')
  return found
}

const SUITES = {
  'AES-GCM': { ike: 'aes256gcm16-prfsha256-x25519', esp: 'aes256gcm16' },
  'AES-CBC with HMAC': { ike: 'aes256-sha256-prfsha256-x25519', esp: 'aes256-sha256' },
  'ChaCha20-Poly1305': { ike: 'chacha20poly1305-prfsha512-ecp256', esp: 'chacha20poly1305' },
} as const

t.test(`no key is left after rekeys and close, on either backend${suffix}`, { skip }, async t => {
  const run = async (crypto: 'node' | 'noble'): Promise<readonly Found[]> => {
    const lives = Object.entries(SUITES).map(async ([suite, proposals]) => {
      const psk = randomBytes(32).toString('base64url')
      const found = await live({ psk, crypto, ...proposals, idleTimeout: 1 }, true)
      const counts = NAMES.map(name => found.filter(each => each.name === name).length)
      t.ok(counts[0]! >= 4 && counts[4]! >= 12, `${crypto}, ${suite}: ${counts.join()} keys`)
      return found.map(({ name, key }) => ({ name: `${crypto}, ${suite}: ${name}`, key }))
    })
    return (await Promise.all(lives)).flat()
  }
  const found = (await Promise.all([run('node'), run('noble')])).flat()
  await collect()
  t.same(left(found), [])
})

t.test(`nor is one that sodium-native had${suffix}`, { skip }, async t => {
  const sodium = createRequire(import.meta.url)('sodium-for-tests') as Sodium
  const psk = randomBytes(32).toString('base64url')
  const aead = { chacha20poly1305: sodiumAead(sodium) }
  const proposals = SUITES['ChaCha20-Poly1305']
  const found = await live({ psk, aead, ...proposals, idleTimeout: 1 }, true)
  t.ok(found.length > 12)
  // libsodium works on the stack of the thread: the key of its last packet is there until others have passed.
  await live({ psk, aead, ...proposals, idleTimeout: 1 }, true)
  await collect()
  t.same(left(found), [])
})

const native = ffiProblem()
t.test(
  native === undefined && canScan
    ? 'nor is one that OpenSSL had by native functions'
    : `nor is one that OpenSSL had by native functions (skipped: ${native ?? 'nothing can be scanned'})`,
  { skip: skip || native !== undefined },
  async t => {
    const psk = randomBytes(32).toString('base64url')
    const lives = [SUITES['AES-GCM'], SUITES['ChaCha20-Poly1305']].map(proposals =>
      live({ psk, accelerate: 'ffi', ...proposals, idleTimeout: 1 }, true),
    )
    const found = (await Promise.all(lives)).flat()
    t.ok(found.length > 24)
    await collect()
    t.same(left(found), [])
  },
)

t.test(`the scan finds what is there, and that alone${suffix}`, { skip }, t => {
  const octets = new Uint8Array(new ArrayBuffer(32))
  const twice = Buffer.from(new ArrayBuffer(200))
  octets.set(randomBytes(32))
  const key = masked(octets)
  twice.set(octets, 10)
  twice.set(octets, 100)
  t.ok(copiesOf([key])[0]! >= 3)
  octets.fill(0)
  twice.fill(0)
  t.ok(copiesOf([key])[0]! < 3)
  t.end()
})

for (const crypto of ['node', 'noble'] as const) {
  t.test(
    `${crypto}: nor SK_d, SK_pi and SK_pr, when rekeys collide too${suffix}`,
    { skip },
    async t => {
      const found: Found[] = []
      const run = (): void => {
        const pair = IkePair.established({ crypto })
        const note = (): void => {
          for (const { sa } of [pair.a, pair.b]) {
            for (const name of ['skD', 'skPi', 'skPr'] as const)
              found.push({ name, key: masked(sa[name].bytes) })
          }
        }
        note()
        pair.rekeyIke(pair.a)
        pair.settle()
        note()
        pair.rekeyIke(pair.a)
        pair.rekeyIke(pair.b)
        pair.settle()
        pair.advance(61_000)
        note()
        pair.deleteIke(pair.a)
        pair.settle()
        pair.advance(61_000)
      }
      run()
      await collect()
      t.equal(found.length, 18)
      t.same(left(found), [])
    },
  )
}

t.test(
  `a pre-shared key is where the program has it, and nowhere else${suffix}`,
  { skip },
  async t => {
    const psk = new Uint8Array(new ArrayBuffer(32))
    psk.set(
      randomBytes(16)
        .toString('hex')
        .split('')
        .map(digit => digit.charCodeAt(0)),
    )
    const key = masked(psk)
    const text = Buffer.from(psk.buffer).toString('latin1')
    await collect()
    const [before] = copiesOf([key])
    const forms = [text, psk, { '*': text }, { '*': psk }, () => text]
    await Promise.all(forms.map(form => live({ psk: form, idleTimeout: 1 }, false)))
    await collect()
    const [after] = copiesOf([key])
    t.ok(after! <= before!, `${after} copies, ${before} before`)
    psk.fill(0)
    t.equal(text.length, 32, 'the program has it still')
  },
)
