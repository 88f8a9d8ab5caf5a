/** EAP-TLS as the client against a server made of node:tls, over EAP packets alone. */
import { Duplex } from 'node:stream'
import { createServer, type Server, type TlsOptions, type TLSSocket } from 'node:tls'
import t from 'tap'
import { concat, getU32, putU32, toHex, utf8 } from '../../lib/base/bytes.ts'
import { EapPeer } from '../../lib/identity/eap/eap-peer.ts'
import { EapTlsClient, parseEapTls } from '../../lib/node/eap-tls.ts'
import { EapCode, EapType, readEapPacket, writeEapPacket } from '../../lib/wire/eap.ts'
import {
  authority,
  certificate,
  crlOf,
  endEntity,
  type Credential,
} from '../harness/certificates.ts'
import { Random, seededEnvironment } from '../harness/random.ts'

const ca = authority('O=Test, CN=Root', 'P-256')
const otherCa = authority('O=Test, CN=Other', 'P-256')
const server = endEntity('radius.test', 'P-256', ca)
const alice = endEntity('alice@test', 'ed25519', ca)

const optionsOf = (client: Credential, more: object = {}) => ({
  method: 'tls',
  identity: 'alice@test',
  cert: client.pem,
  key: client.keyPem,
  ca: ca.pem,
  ...more,
})

interface ServerFacts extends TlsOptions {
  /** Octets of TLS in one EAP packet. */
  readonly fragment?: number
  /** Sends something else than RFC 9190's octet of zero when it is satisfied. */
  readonly indication?: Uint8Array | 'none'
}

/** The other end of RFC 5216: a request for each response, until it knows. */
class EapTlsServer {
  private readonly written: Uint8Array[] = []
  private readonly wire: Duplex
  private readonly server: Server
  private socket: TLSSocket | undefined
  private readonly facts: ServerFacts
  private pending: Uint8Array | undefined
  private sent = 0
  private incoming: Uint8Array[] = []
  private id = 40
  failed = false
  isSatisfied = false
  clientName: unknown
  largestResponse = 0

  constructor(facts: ServerFacts) {
    this.facts = facts
    this.wire = new Duplex({
      read() {},
      write: (chunk: Buffer, _encoding, done) => {
        this.written.push(new Uint8Array(chunk))
        done()
      },
    })
    this.server = createServer(
      {
        requestCert: true,
        rejectUnauthorized: true,
        cert: server.pem,
        key: server.keyPem,
        ca: ca.pem,
        ...facts,
      },
      socket => {
        this.socket = socket
        this.isSatisfied = true
        this.clientName = socket.getPeerCertificate().subject.CN
        socket.on('error', () => {})
        const { indication = Uint8Array.of(0) } = facts
        const isTls13 = socket.getProtocol() === 'TLSv1.3'
        if (isTls13 && indication !== 'none') socket.write(indication)
      },
    )
    this.server.on('tlsClientError', () => (this.failed = true))
    this.server.emit('connection', this.wire)
  }

  start(): Uint8Array {
    return this.request(Uint8Array.of(0x20))
  }

  private request(data: Uint8Array): Uint8Array {
    return writeEapPacket({ code: EapCode.Request, id: ++this.id, type: EapType.Tls, data })
  }

  /** A request, or the verdict. */
  async handle(response: Uint8Array): Promise<Uint8Array> {
    this.largestResponse = Math.max(this.largestResponse, response.length)
    const packet = readEapPacket(response)!
    if (packet.id !== this.id || packet.type !== EapType.Tls) throw new Error('a wrong response')
    const flags = packet.data[0]!
    if (this.pending !== undefined && this.sent < this.pending.length) return this.next()
    const hasLength = (flags & 0x80) !== 0
    if (hasLength !== (flags >= 0x40 && this.incoming.length === 0)) throw new Error('flag L')
    const announced = hasLength ? getU32(packet.data, 1) : undefined
    this.incoming.push(packet.data.subarray(hasLength ? 5 : 1))
    if (announced !== undefined && announced < 1011) throw new Error('a length that nobody needs')
    if ((flags & 0x40) !== 0) return this.request(Uint8Array.of(0))
    const whole = concat(...this.incoming.splice(0))
    if (whole.length === 0) {
      return Uint8Array.of(this.isSatisfied ? EapCode.Success : EapCode.Failure, this.id, 0, 4)
    }
    this.wire.push(whole)
    for (let turn = 0; turn < 30; turn++) await new Promise(done => setImmediate(done))
    if (this.failed && this.written.length === 0) return Uint8Array.of(4, this.id, 0, 4)
    this.pending = concat(...this.written.splice(0))
    this.sent = 0
    return this.next()
  }

  private next(): Uint8Array {
    const { fragment = 500 } = this.facts
    const whole = this.pending!
    const part = whole.subarray(this.sent, this.sent + fragment)
    const isFirst = this.sent === 0 && part.length < whole.length
    this.sent += part.length
    const head = new Uint8Array(isFirst ? 5 : 1)
    head[0] = (isFirst ? 0x80 : 0) | (this.sent < whole.length ? 0x40 : 0)
    if (isFirst) putU32(head, 1, whole.length)
    return this.request(concat(head, part))
  }

  /** The key as the server derives it. */
  msk(): Uint8Array {
    const socket = this.socket!
    const material =
      socket.getProtocol() === 'TLSv1.3'
        ? socket.exportKeyingMaterial(128, 'EXPORTER_EAP_TLS_Key_Material', Buffer.of(13))
        : socket.exportKeyingMaterial(128, 'client EAP encryption', undefined as never)
    return new Uint8Array(material.subarray(0, 64))
  }

  destroy(): void {
    this.socket?.destroy()
    this.wire.destroy()
  }
}

/** A whole authentication; what the client says at its end. */
const authenticate = async (facts: ServerFacts, options: object = optionsOf(alice)) => {
  const remote = new EapTlsServer(facts)
  const tls = new EapTlsClient(parseEapTls(options as Record<string, unknown>))
  const peer = new EapPeer({ method: 'tls', identity: 'alice@test' }, seededEnvironment(1))
  let request = remote.start()
  let rounds = 0
  for (;;) {
    let step = peer.handle(request)
    if (step.kind === 'external') step = peer.resume(await tls.handle(step.request))
    if (step.kind !== 'respond') {
      const msk = step.kind === 'success' ? toHex(step.msk) : undefined
      const why = step.kind === 'failed' ? step.why : undefined
      const theirs = step.kind === 'success' ? toHex(remote.msk()) : undefined
      tls.destroy()
      remote.destroy()
      return { kind: step.kind, why, msk, theirs, remote, rounds }
    }
    rounds++
    request = await remote.handle(step.packet)
  }
}

for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
  const only = { minVersion: version, maxVersion: version } as const

  t.test(`${version}: both ends have the same key`, async t => {
    const { kind, why, msk, theirs, remote } = await authenticate(only)
    t.strictSame([kind, why], ['success', undefined])
    t.equal(msk, theirs)
    t.equal(msk?.length, 128)
    t.equal(remote.clientName, 'alice@test')
    t.ok(remote.largestResponse <= 1020)
  })

  t.test(`${version}: chains of certificates in fragments both ways`, async t => {
    const middle = authority('O=Test, CN=Middle', 'rsa', ca)
    const bob = endEntity('bob@test', 'rsa', middle)
    const gateway = endEntity('gw.test', 'rsa', middle)
    const { kind, why, msk, theirs, remote, rounds } = await authenticate(
      { ...only, fragment: 200, cert: gateway.pem + middle.pem, key: gateway.keyPem },
      optionsOf(bob, { cert: [bob.pem, middle.pem] }),
    )
    t.strictSame([kind, why], ['success', undefined])
    t.equal(msk, theirs)
    t.equal(remote.clientName, 'bob@test')
    t.ok(rounds > 12)
    t.equal(remote.largestResponse, 1020, 'a full fragment')
  })

  t.test(`${version}: a server of another authority (CVE-2023-26463)`, async t => {
    const stranger = endEntity('radius.test', 'P-256', otherCa)
    const result = await authenticate({ ...only, cert: stranger.pem, key: stranger.keyPem })
    t.equal(result.kind, 'failed')
    t.match(result.why, /EAP-TLS: .*(unable|certificate)/)
    // In TLS 1.2 our certificate goes before node:tls judges the server's.
    const isTold = version === 'TLSv1.2'
    t.equal(result.remote.clientName, isTold ? 'alice@test' : undefined, 'whether it knows us')
  })

  t.test(`${version}: a server that signed its certificate itself (CVE-2023-26463)`, async t => {
    const self = certificate('O=Test, CN=radius.test', 'P-256', undefined)
    const result = await authenticate({ ...only, cert: self.pem, key: self.keyPem })
    t.match(result, { kind: 'failed', why: /self-signed certificate/ })
  })

  t.test(
    `${version}: a server with a certificate for clients, an expired one, a revoked one`,
    async t => {
      const client = endEntity('radius.test', 'P-256', ca, {
        extendedKeyUsage: ['1.3.6.1.5.5.7.3.2'],
      })
      t.match(await authenticate({ ...only, cert: client.pem, key: client.keyPem }), {
        kind: 'failed',
        why: /purpose/,
      })
      const old = endEntity('radius.test', 'P-256', ca, { notAfter: Date.now() - 3600_000 })
      t.match(await authenticate({ ...only, cert: old.pem, key: old.keyPem }), {
        kind: 'failed',
        why: /expired/,
      })
      const serial = Uint8Array.of(0x7f, 1, 2)
      const bad = endEntity('radius.test', 'P-256', ca, { serial })
      t.match(
        await authenticate(
          { ...only, cert: bad.pem, key: bad.keyPem },
          optionsOf(alice, { crl: crlOf(ca, [serial]) }),
        ),
        { kind: 'failed', why: /revoked/ },
      )
      t.match(await authenticate(only, optionsOf(alice, { crl: crlOf(ca, [serial]) })), {
        kind: 'success',
      })
    },
  )

  t.test(`${version}: the server's name is checked where one is given`, async t => {
    t.match(await authenticate(only, optionsOf(alice, { servername: 'radius.test' })), {
      kind: 'success',
    })
    const result = await authenticate(only, optionsOf(alice, { servername: 'other.test' }))
    t.match(result, { kind: 'failed', why: /other\.test/ })
  })

  t.test(`${version}: a server that does not know us refuses, and we say so`, async t => {
    const mallory = endEntity('alice@test', 'P-256', otherCa)
    const result = await authenticate(only, optionsOf(mallory))
    t.equal(result.kind, 'failed')
    t.equal(result.msk, undefined)
  })
}

t.test('TLS 1.3: no key before the octet that says that the server is satisfied', async t => {
  const only = { minVersion: 'TLSv1.3', maxVersion: 'TLSv1.3' } as const
  const silent = await authenticate({ ...only, indication: 'none' })
  t.match(silent, { kind: 'failed', why: /success before the method has ended/ })
  for (const indication of [Uint8Array.of(1), Uint8Array.of(0, 0), utf8('HTTP/1.1 200 OK')]) {
    const wrong = await authenticate({ ...only, indication })
    t.match(wrong, { kind: 'failed', why: /sent data through/ })
  }
})

t.test('older versions of TLS are refused', async t => {
  const result = await authenticate({
    minVersion: 'TLSv1',
    maxVersion: 'TLSv1.1',
    ciphers: 'DEFAULT@SECLEVEL=0',
  })
  t.match(result, { kind: 'failed' })
})

const begin = async () => {
  const client = new EapTlsClient(parseEapTls(optionsOf(alice)))
  let hello = await client.handle(requestOf(Uint8Array.of(0x20)))
  // With a post-quantum key share in it, it takes more than one fragment.
  while (((readEapPacket(hello.packet!)?.data[0] ?? 0) & 0x40) !== 0) {
    hello = await client.handle(requestOf(Uint8Array.of(0)))
  }
  return { client, hello }
}
const requestOf = (data: Uint8Array): Uint8Array =>
  writeEapPacket({ code: EapCode.Request, id: 1, type: EapType.Tls, data })

t.test('fragments whose lengths do not fit are refused', async t => {
  const body = new Uint8Array(20)
  const withLength = (flags: number, length: number, octets = body): Uint8Array => {
    const head = Uint8Array.of(flags, 0, 0, 0, 0)
    putU32(head, 1, length)
    return concat(head, octets)
  }
  for (const [name, ...fragments] of [
    ['no flags', new Uint8Array(0)],
    ['no length behind the flag', Uint8Array.of(0x80, 0, 0)],
    ['longer than announced', withLength(0x80, 19)],
    ['shorter than announced', withLength(0x80, 21)],
    ['a first fragment without a length', concat(Uint8Array.of(0x40), body)],
    ['an empty fragment', withLength(0xc0, 40), Uint8Array.of(0x40)],
    ['an announcement above 64 KiB', withLength(0xc0, 65_537)],
    ['an announcement of 4 GiB', withLength(0xc0, 0xffffffff)],
    ['two announcements', withLength(0xc0, 40), withLength(0x80, 41)],
    ['more than announced', withLength(0xc0, 30), concat(Uint8Array.of(0x40), body)],
    ['too little at the end', withLength(0xc0, 50), concat(Uint8Array.of(0), body)],
  ] as const) {
    const { client, hello } = await begin()
    t.ok(hello.packet !== undefined && hello.why === undefined)
    for (const [i, fragment] of fragments.entries()) {
      const answer = await client.handle(requestOf(fragment))
      if (i < fragments.length - 1) t.equal(answer.why, undefined, `${name}: taken so far`)
      else t.match(answer.why, /malformed/, name)
    }
    client.destroy()
  }
})

t.test('requests out of their order are refused', async t => {
  const early = new EapTlsClient(parseEapTls(optionsOf(alice)))
  t.match(await early.handle(requestOf(Uint8Array.of(0, 1, 2))), { why: /did not begin/ })
  t.match(await early.handle(Uint8Array.of(3, 1, 0, 4)), { why: /malformed/ })
  t.match(await early.handle(Uint8Array.of(9)), { why: /malformed/ })
  early.destroy()
  const { client } = await begin()
  t.match(await client.handle(requestOf(Uint8Array.of(0x20))), { why: /twice/ })
  client.destroy()
  t.match(await client.handle(requestOf(Uint8Array.of(0))), { why: /given up/ })
})

t.test('whatever comes instead of TLS ends it with an answer', async t => {
  const random = new Random(30)
  for (let run = 0; run < 60; run++) {
    const { client } = await begin()
    const octets = new Uint8Array(random.integer(0, 300))
    random.fill(octets)
    // Half of them look like a record: an alert, a handshake, data.
    if (octets.length > 5 && random.chance(0.5)) {
      octets.set([random.integer(20, 24), 3, 3, 0, octets.length - 5])
    }
    const answer = await client.handle(requestOf(concat(Uint8Array.of(0), octets)))
    t.ok(answer.packet !== undefined || answer.why !== undefined)
    t.equal(answer.msk, undefined)
    client.destroy()
  }
})

t.test('an alert of the server ends it with its reason', async t => {
  const { client } = await begin()
  // handshake_failure, fatal
  const answer = await client.handle(requestOf(Uint8Array.of(0, 21, 3, 3, 0, 2, 2, 40)))
  t.match(answer.why, /handshake failure/)
  client.destroy()
})

t.test(
  'certificates and keys come in the forms of tls, and in DER; errors name the option',
  async t => {
    const parse = (more: object) => parseEapTls(optionsOf(alice, more))
    const pkcs8 = alice.key.export({ type: 'pkcs8', format: 'der' })
    const locked = alice.key.export({
      type: 'pkcs8',
      format: 'pem',
      cipher: 'aes-256-cbc',
      passphrase: 'open',
    })
    for (const more of [
      { cert: alice.der, key: pkcs8, ca: ca.der },
      { cert: Buffer.from(alice.pem), key: Buffer.from(alice.keyPem), ca: [Buffer.from(ca.pem)] },
      { key: alice.key, ca: [ca.pem, otherCa.der] },
      { key: locked, passphrase: 'open' },
    ]) {
      t.equal((await authenticate({}, optionsOf(alice, more))).kind, 'success')
    }
    for (const [more, option, text] of [
      [{ cert: undefined }, 'eap.cert', /certificate/],
      [{ cert: 'garbage' }, 'eap.cert', /certificate/],
      [{ ca: undefined }, 'eap.ca', /certificate/],
      [{ ca: [] }, 'eap.ca', /certificate/],
      [{ cert: [] }, 'eap.cert', /certificate/],
      [{ ca: [ca.pem, 5] }, 'eap.ca', /certificate/],
      [{ key: undefined }, 'eap.key', /private key/],
      [{ key: 'hunter2' }, 'eap.key', /private key/],
      [{ key: locked }, 'eap.key', /passphrase/],
      [{ key: locked, passphrase: 'wrong' }, 'eap.key', /private key/],
      [{ key: server.keyPem }, 'eap.key', /private key of "eap.cert"/],
      [{ crl: 'garbage' }, 'eap.crl', /CRL/],
      [{ servername: 5 }, 'eap.servername', /string/],
      [{ servername: '' }, 'eap.servername', /string/],
    ] as const) {
      try {
        parse(more)
        t.fail(`accepted ${option}`)
      } catch (error) {
        t.match(error, { name: 'OptionError', option, message: text })
        t.notMatch((error as Error).message, /hunter2/)
      }
    }
  },
)
