/** EAP in IKE_AUTH (RFC 7296 §2.16), the client against a gateway whose every message is scripted. */
import t, { type Test } from 'tap'
import { concat, fromHex, putU16, toHex, utf8 } from '../../lib/base/bytes.ts'
import {
  authenticatorResponse,
  challengeHash,
  mschapMsk,
  ntPasswordHash,
} from '../../lib/identity/eap/mschap-crypto.ts'
import type { EapAnswer } from '../../lib/identity/eap/eap-peer.ts'
import { parseIdentity } from '../../lib/identity/identity.ts'
import { EapCode, EapType, readEapPacket, writeEapPacket } from '../../lib/wire/eap.ts'
import { notify } from '../../lib/wire/notify.ts'
import type { Payload } from '../../lib/wire/payloads.ts'
import { NotifyType } from '../../lib/wire/registry.ts'
import { Caller, isIke } from '../harness/attacker.ts'
import { authority, certificate, endEntity } from '../harness/certificates.ts'
import { Gateway, ONE_SUITE } from '../harness/gateway.ts'
import type { Options } from '../harness/world.ts'

// The caller's clock stands in 2027.
const LONG = { notAfter: Date.now() + 5 * 365 * 86_400_000 }
const root = authority('O=Test, CN=Root', 'P-256', undefined, LONG)
const stranger = authority('O=Test, CN=Other', 'P-256', undefined, LONG)
const credential = endEntity('gw.test', 'P-256', root, LONG)

const CHALLENGE = fromHex('00112233445566778899aabbccddeeff')
const CLIENT: Options = {
  ...ONE_SUITE,
  psk: undefined,
  ca: root.pem,
  remoteId: 'gw.test',
  localId: 'alice@test',
  eap: { method: 'mschapv2', identity: 'alice', password: 'wonderland' },
}

const eap = (data: Uint8Array): Payload => ({ kind: 'eap', data })
const request = (type: number, data: Uint8Array): Payload =>
  eap(writeEapPacket({ code: EapCode.Request, id: 3, type, data }))
const verdict = (code: number): Payload => eap(Uint8Array.of(code, 3, 0, 4))
const IDENTITY = request(EapType.Identity, new Uint8Array(0))

const mschap = (opCode: number, body: Uint8Array): Payload => {
  const data = concat(Uint8Array.of(opCode, 9, 0, 0), body)
  putU16(data, 2, data.length)
  return request(EapType.MsChapV2, data)
}

/** A client that has got the answer to its first message, and its IKE_AUTH, which has no AUTH. */
class Login {
  readonly caller: Caller
  readonly gateway = new Gateway(parseIdentity('id', 'gw.test'))
  readonly first: readonly Payload[]
  private messageId = 1

  constructor(options: Options = {}, seed = 99) {
    this.caller = new Caller(Uint8Array.of(198, 51, 100, 7), { ...CLIENT, ...options }, seed)
    const [init] = this.caller.connect()
    const [auth] = this.caller.receive(this.gateway.init(init!))
    this.first = this.gateway.open(auth!)
  }

  /** The gateway answers; gives the client's next request, empty when it sends none. */
  answer(...payloads: readonly Payload[]): readonly Payload[] {
    const sent = this.caller.receive(this.gateway.seal(this.messageId++, payloads))
    return sent.filter(isIke).flatMap(datagram => this.gateway.open(datagram))
  }

  /** What became of it, at once or when nobody answers. */
  outcome(): string {
    const { caller } = this
    for (let i = 0; i < 60; i++) {
      for (const event of caller.events) {
        if (event.kind === 'session') return `session with ${event.session.peer.identityText}`
        if (event.kind === 'failed') return event.error.message
      }
      caller.now = Math.min(caller.core.nextTimeout(), caller.now + 100_000)
      caller.core.handleTimeout(caller.now)
      caller.drain()
    }
    return 'nothing'
  }
}

const eapOf = (payloads: readonly Payload[]) => {
  const payload = payloads.find(({ kind }) => kind === 'eap')
  return payload?.kind === 'eap' ? readEapPacket(payload.data) : undefined
}

/** Up to the point where the client has acknowledged the gateway's proof. */
const loggedIn = (options: Options = {}): { login: Login; msk: Uint8Array } => {
  const login = new Login(options)
  login.answer(...login.gateway.proof(credential), IDENTITY)
  const response = eapOf(
    login.answer(mschap(1, concat(Uint8Array.of(16), CHALLENGE, utf8('gw')))),
  )!.data
  const hash = ntPasswordHash(utf8('wonderland'))
  const nonce = challengeHash(response.subarray(5, 21), CHALLENGE, 'alice')
  const proof = authenticatorResponse(hash, response.subarray(29, 53), nonce)
  login.answer(mschap(3, utf8(`S=${toHex(proof).toUpperCase()} M=ok`)))
  return { login, msk: mschapMsk(hash, response.subarray(29, 53)) }
}

t.test('a whole login by EAP-MSCHAPv2', t => {
  const login = new Login()
  t.notOk(
    login.first.some(({ kind }) => kind === 'auth'),
    'the first IKE_AUTH has no AUTH: it asks for EAP',
  )
  t.strictSame(
    eapOf(login.answer(...login.gateway.proof(credential), IDENTITY))?.data,
    utf8('alice'),
  )
  const finished = loggedIn()
  const last = finished.login.answer(verdict(EapCode.Success))
  t.match(last, [{ kind: 'auth', method: 2 }])
  const { login: done, msk } = finished
  done.answer(done.gateway.keyed(msk), ...done.gateway.child(done.first))
  t.equal(done.outcome(), 'session with gw.test')
  t.end()
})

/** The client must fail, and must not have answered EAP. */
const saysNothing = (t: Test, login: Login, answer: readonly Payload[], why: RegExp): void => {
  const sent = login.answer(...answer)
  t.notOk(
    sent.some(({ kind }) => kind === 'eap'),
    `no EAP towards ${why}`,
  )
  t.match(login.outcome(), why)
}

t.test('CVE-2015-4171: nothing of the user goes to a gateway that has not proved itself', t => {
  const login = (options?: Options) => new Login(options)
  const none = login()
  saysNothing(t, none, [none.gateway.idr, IDENTITY], /AUTH|could not be authenticated/)
  const unsigned = login()
  const [idr, cert, auth] = unsigned.gateway.proof(credential) as [Payload, Payload, Payload]
  saysNothing(t, unsigned, [idr, cert, IDENTITY], /AUTH|could not be authenticated/)
  const other = login()
  const forged = other.gateway.proof(credential, stranger.key)
  saysNothing(t, other, [...forged, IDENTITY], /signature does not verify/)
  // What proved the gateway to another client.
  const replayed = new Login({}, 100)
  saysNothing(t, replayed, [idr, cert, auth, IDENTITY], /signature does not verify/)
  const untrusted = login()
  const foreign = untrusted.gateway.proof(endEntity('gw.test', 'P-256', stranger, LONG))
  saysNothing(t, untrusted, [...foreign, IDENTITY], /trusted CA/)
  const self = login()
  const own = self.gateway.proof(certificate('O=Test, CN=gw.test', 'P-256', undefined, LONG))
  saysNothing(t, self, [...own, IDENTITY], /self-signed/)
  const elsewhere = login()
  const wrong = elsewhere.gateway.proof(endEntity('other.test', 'P-256', root, LONG))
  saysNothing(t, elsewhere, [...wrong, IDENTITY], /gw\.test/)
  const expected = login({ remoteId: 'vpn.test' })
  saysNothing(t, expected, [...expected.gateway.proof(credential), IDENTITY], /vpn\.test/)
  const keyed = login()
  const byKey = keyed.gateway.keyed(utf8('wonderland'))
  saysNothing(t, keyed, [keyed.gateway.idr, byKey, IDENTITY], /pre-shared key|authenticated/)
  t.end()
})

t.test('CVE-2021-45079: EAP success before the method has run', t => {
  const early = new Login()
  const sent = early.answer(...early.gateway.proof(credential), verdict(EapCode.Success))
  t.notOk(sent.some(({ kind }) => kind === 'auth' || kind === 'eap'))
  t.match(early.outcome(), /success before the method has ended/)
  const identified = new Login()
  identified.answer(...identified.gateway.proof(credential), IDENTITY)
  t.notOk(identified.answer(verdict(EapCode.Success)).some(({ kind }) => kind === 'auth'))
  t.match(identified.outcome(), /success before the method has ended/)
  // Or the whole of an SA, where EAP is due.
  const skipped = new Login()
  const { gateway } = skipped
  skipped.answer(...gateway.proof(credential), ...gateway.child(skipped.first))
  t.match(skipped.outcome(), /does not ask for EAP/)
  t.end()
})

t.test('the gateway must know the key of the method, at the end', t => {
  for (const spoil of [
    (login: Login) => [login.gateway.keyed(new Uint8Array(64))],
    (login: Login) => [login.gateway.keyed(new Uint8Array(0))],
    (login: Login) => login.gateway.proof(credential).slice(2),
    () => [],
  ]) {
    const { login } = loggedIn()
    login.answer(verdict(EapCode.Success))
    login.answer(...spoil(login), ...login.gateway.child(login.first))
    t.match(login.outcome(), /does not know the key of EAP|could not be authenticated|AUTH/)
  }
  t.end()
})

t.test('a gateway that refuses the user is quoted, escaped', t => {
  const login = new Login()
  login.answer(...login.gateway.proof(credential), IDENTITY)
  login.answer(mschap(1, concat(Uint8Array.of(16), CHALLENGE, utf8('gw'))))
  login.answer(mschap(4, utf8('E=691 R=0 C=00 V=3 M=go \u001b[31maway')))
  login.answer(verdict(EapCode.Failure))
  t.match(login.outcome(), /wrong name or password: 'go \\u001b\[31maway'/)
  const plain = new Login()
  plain.answer(...plain.gateway.proof(credential), IDENTITY)
  plain.answer(notify(NotifyType.AuthenticationFailed))
  t.match(plain.outcome(), /AUTHENTICATION_FAILED/)
  t.end()
})

t.test('requests without an end are ended', t => {
  const login = new Login()
  let sent = login.answer(...login.gateway.proof(credential), IDENTITY)
  let rounds = 0
  while (eapOf(sent) !== undefined && rounds < 200) {
    sent = login.answer(IDENTITY)
    rounds++
  }
  t.equal(rounds, 64)
  t.match(login.outcome(), /endlessly/)
  t.end()
})

const client = endEntity('alice@test', 'P-256', root, LONG)
const byTls = (more: object = {}): Options => ({
  eap: {
    method: 'tls',
    identity: 'alice@test',
    cert: client.pem,
    key: client.keyPem,
    ca: root.pem,
    ...more,
  },
})
const START = request(EapType.Tls, Uint8Array.of(0x20))
const ANSWER = writeEapPacket({
  code: EapCode.Response,
  id: 3,
  type: EapType.Tls,
  data: Uint8Array.of(0),
})
const MSK = new Uint8Array(64).fill(0x2a)

/** The application's answer to the question that stands; gives the client's next request. */
const apply = ({ caller, gateway }: Login, eap: EapAnswer | undefined): readonly Payload[] => {
  const asked = caller.events.findLast(({ kind }) => kind === 'question')
  if (asked?.kind !== 'question' || asked.question.kind !== 'eap') throw new Error('no question')
  t.strictSame(asked.question.request, (START as Payload & { kind: 'eap' }).data)
  caller.core.answer(asked.id, { eap }, caller.now)
  return caller
    .drain()
    .filter(isIke)
    .flatMap(datagram => gateway.open(datagram))
}

t.test('EAP-TLS is asked of the application, and its key proves both ends', t => {
  const login = new Login(byTls())
  t.equal(login.answer(...login.gateway.proof(credential), START).length, 0)
  t.strictSame(eapOf(apply(login, { packet: ANSWER, msk: MSK }))?.data, Uint8Array.of(0))
  t.match(login.answer(verdict(EapCode.Success)), [{ kind: 'auth', method: 2 }])
  login.answer(login.gateway.keyed(MSK), ...login.gateway.child(login.first))
  t.equal(login.outcome(), 'session with gw.test')
  const silent = new Login(byTls())
  silent.answer(...silent.gateway.proof(credential), START)
  apply(silent, undefined)
  t.match(silent.outcome(), /gave up/)
  const failed = new Login(byTls())
  failed.answer(...failed.gateway.proof(credential), START)
  t.ok(eapOf(apply(failed, { packet: ANSWER, why: 'EAP-TLS: it has expired' })))
  failed.answer(verdict(EapCode.Success))
  t.match(failed.outcome(), /it has expired/)
  t.end()
})

t.test('EAP-TLS alone (RFC 5998), only where it was asked for', t => {
  const login = new Login(byTls({ only: true, servername: 'gw.test' }))
  t.ok(
    login.first.some(
      payload => payload.kind === 'notify' && payload.type === NotifyType.EapOnlyAuthentication,
    ),
  )
  login.answer(login.gateway.idr, START)
  apply(login, { packet: ANSWER, msk: MSK })
  t.match(login.answer(verdict(EapCode.Success)), [{ kind: 'auth', method: 2 }])
  login.answer(login.gateway.keyed(MSK), ...login.gateway.child(login.first))
  t.equal(login.outcome(), 'session with gw.test')
  const forged = new Login(byTls({ only: true, servername: 'gw.test' }))
  forged.answer(forged.gateway.idr, START)
  apply(forged, { packet: ANSWER, msk: MSK })
  forged.answer(verdict(EapCode.Success))
  forged.answer(forged.gateway.keyed(new Uint8Array(64)), ...forged.gateway.child(forged.first))
  t.match(forged.outcome(), /does not know the key of EAP/)
  // Where it was not asked for, the gateway owes its own proof first.
  const careful = new Login(byTls())
  t.notOk(
    careful.first.some(
      payload => payload.kind === 'notify' && payload.type === NotifyType.EapOnlyAuthentication,
    ),
  )
  saysNothing(t, careful, [careful.gateway.idr, START], /AUTH|could not be authenticated/)
  t.notOk(careful.caller.events.some(({ kind }) => kind === 'question'))
  t.end()
})
