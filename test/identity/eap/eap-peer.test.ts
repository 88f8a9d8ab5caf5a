/** EAP as the client: a gateway that does right, and gateways that do not. */
import t from 'tap'
import { concat, fromHex, putU16, toHex, utf8 } from '../../../lib/base/bytes.ts'
import { Secret } from '../../../lib/base/secret.ts'
import { EapCode, EapType, readEapPacket, writeEapPacket } from '../../../lib/wire/eap.ts'
import { EapPeer, parseEap, type EapStep } from '../../../lib/identity/eap/eap-peer.ts'
import {
  authenticatorResponse,
  challengeHash,
  challengeResponse,
  mschapMsk,
  ntPasswordHash,
} from '../../../lib/identity/eap/mschap-crypto.ts'
import { Random, seededEnvironment } from '../../harness/random.ts'

const CHALLENGE = fromHex('00112233445566778899aabbccddeeff')

const peer = (identity = 'alice', password = 'wonderland'): EapPeer =>
  new EapPeer(
    { method: 'mschapv2', identity, password: new Secret(utf8(password)) },
    seededEnvironment(1),
  )
const tlsPeer = (): EapPeer => new EapPeer({ method: 'tls', identity: 'a' }, seededEnvironment(1))

const request = (type: number, data: Uint8Array, id = 7): Uint8Array =>
  writeEapPacket({ code: EapCode.Request, id, type, data })
const verdict = (code: number): Uint8Array => Uint8Array.of(code, 9, 0, 4)
const mschap = (opCode: number, body: Uint8Array, id = 5): Uint8Array => {
  const data = concat(Uint8Array.of(opCode, id, 0, 0), body)
  putU16(data, 2, data.length)
  return request(EapType.MsChapV2, data)
}
const challenge = (name = 'gw'): Uint8Array =>
  mschap(1, concat(Uint8Array.of(16), CHALLENGE, utf8(name)))

/** The data of the EAP response in a step. */
const answerOf = (step: EapStep) => {
  if (step.kind !== 'respond') throw new Error(`no response but ${JSON.stringify(step)}`)
  const packet = readEapPacket(step.packet)
  if (packet?.code !== EapCode.Response) throw new Error('no EAP response')
  return packet
}
const whyOf = (step: EapStep): string => {
  if (step.kind !== 'failed') throw new Error(`not failed but ${step.kind}`)
  return step.why
}

/** What a gateway that knows the password makes of the response. */
const judge = (data: Uint8Array, account = 'alice', password = 'wonderland') => {
  const hash = ntPasswordHash(utf8(password))
  const nonce = challengeHash(data.subarray(5, 21), CHALLENGE, account)
  const expected = challengeResponse(nonce, hash)
  const given = data.subarray(29, 53)
  const proof = toHex(authenticatorResponse(hash, given, nonce)).toUpperCase()
  return { isRight: toHex(expected) === toHex(given), proof, msk: mschapMsk(hash, given) }
}

t.test('EAP-MSCHAPv2 from the identity to the key', t => {
  const eap = peer()
  t.strictSame(answerOf(eap.handle(request(EapType.Identity, utf8('hello'), 3))), {
    code: EapCode.Response,
    id: 3,
    type: EapType.Identity,
    data: utf8('alice'),
  })
  const { id, type, data } = answerOf(eap.handle(challenge()))
  t.equal(id, 7)
  t.equal(type, EapType.MsChapV2)
  t.strictSame(data.subarray(0, 5), Uint8Array.of(2, 5, 0, 59, 49))
  t.strictSame(data.subarray(21, 29), new Uint8Array(8))
  t.strictSame(data.subarray(53), concat(Uint8Array.of(0), utf8('alice')))
  const { isRight, proof, msk } = judge(data)
  t.ok(isRight)
  t.strictSame(answerOf(eap.handle(mschap(3, utf8(`S=${proof} M=Welcome`)))).data, Uint8Array.of(3))
  t.strictSame(eap.handle(verdict(EapCode.Success)), { kind: 'success', msk })
  t.equal(whyOf(eap.handle(verdict(EapCode.Success))), 'EAP after its end')
  t.end()
})

t.test('a domain in front of the name is sent and not hashed', t => {
  const { data } = answerOf(peer('WONDER\\alice').handle(challenge()))
  t.strictSame(data.subarray(54), utf8('WONDER\\alice'))
  t.ok(judge(data, 'alice').isRight)
  t.end()
})

t.test('a gateway that does not know the password gets no acknowledgement and no key', t => {
  for (const text of [
    `S=${'0'.repeat(40)}`,
    'S=',
    'M=Welcome',
    '',
    `S=${'0'.repeat(39)}`,
    `S=${'zz'.repeat(20)}`,
    `S=${'0'.repeat(400)}`,
  ]) {
    const eap = peer()
    answerOf(eap.handle(challenge()))
    t.match(whyOf(eap.handle(mschap(3, utf8(text)))), /could not prove/)
    t.equal(eap.handle(verdict(EapCode.Success)).kind, 'failed')
  }
  t.end()
})

t.test('CVE-2015-8023: EAP-MSCHAPv2 success before a challenge', t => {
  const eap = peer()
  t.match(whyOf(eap.handle(mschap(3, utf8(`S=${'0'.repeat(40)}`)))), /without a challenge/)
  t.equal(eap.handle(verdict(EapCode.Success)).kind, 'failed')
  t.end()
})

t.test('CVE-2021-45079: EAP success before the method gave a key', t => {
  t.match(whyOf(peer().handle(verdict(EapCode.Success))), /before the method has ended/)
  t.match(whyOf(tlsPeer().handle(verdict(EapCode.Success))), /before the method has ended/)
  const identified = peer()
  identified.handle(request(EapType.Identity, utf8('')))
  t.equal(identified.handle(verdict(EapCode.Success)).kind, 'failed')
  const answered = peer()
  answered.handle(challenge())
  t.equal(answered.handle(verdict(EapCode.Success)).kind, 'failed')
  const refused = peer()
  refused.handle(challenge())
  answerOf(refused.handle(mschap(4, utf8('E=691 R=0'))))
  t.equal(refused.handle(verdict(EapCode.Success)).kind, 'failed')
  const early = tlsPeer()
  early.handle(request(EapType.Tls, Uint8Array.of(0x20)))
  t.equal(early.handle(verdict(EapCode.Success)).kind, 'failed')
  const withoutKey = tlsPeer()
  withoutKey.handle(request(EapType.Tls, Uint8Array.of(0x20)))
  const packet = writeEapPacket({ code: 2, id: 7, type: EapType.Tls, data: Uint8Array.of(0) })
  t.equal(withoutKey.resume({ packet }).kind, 'respond')
  t.equal(withoutKey.handle(verdict(EapCode.Success)).kind, 'failed')
  t.end()
})

t.test('CVE-2025-62291: EAP-MSCHAPv2 failure requests of every length', t => {
  const text = `E=691 R=1 C=${'A'.repeat(32)} V=3 M=No\u001b[2J\r\n%s way`
  for (let length = 0; length <= text.length; length++) {
    const eap = peer()
    eap.handle(challenge())
    const cut = Uint8Array.from(text.slice(0, length), c => c.charCodeAt(0))
    t.strictSame(answerOf(eap.handle(mschap(4, cut))).data, Uint8Array.of(4))
    const why = whyOf(eap.handle(verdict(EapCode.Failure)))
    // Cut within its digits the number is another one.
    const digits = Math.min(Math.max(length - 2, 0), 3)
    t.match(why, [/no reason/, /error 6/, /error 69/, /wrong name or password/][digits]!)
    t.notMatch(why, /[^ -~]/)
  }
  const long = peer()
  long.handle(challenge())
  long.handle(mschap(4, utf8(`E=999 M=${'x'.repeat(60_000)}`)))
  const why = whyOf(long.handle(verdict(EapCode.Failure)))
  t.match(why, /error 999: 'x+'…/)
  t.ok(why.length < 250)
  // The length inside says more, or less, than there is.
  for (const said of [0, 3, 4, 8, 10, 600, 65535]) {
    const eap = peer()
    eap.handle(challenge())
    const data = concat(Uint8Array.of(4, 5, 0, 0), utf8('E=691'))
    putU16(data, 2, said)
    t.match(whyOf(eap.handle(request(EapType.MsChapV2, data))), /malformed/, String(said))
  }
  t.end()
})

t.test('a failure ends it even where the gateway allows another try', t => {
  const eap = peer()
  eap.handle(challenge())
  eap.handle(mschap(4, utf8('E=691 R=1 C=00112233445566778899AABBCCDDEEFF V=3')))
  t.equal(whyOf(eap.handle(challenge())), 'EAP-MSCHAPv2 goes on after its end')
  t.end()
})

t.test('a second challenge is no second try for whoever guesses', t => {
  const eap = peer()
  eap.handle(challenge())
  t.match(whyOf(eap.handle(challenge())), /second/)
  t.end()
})

t.test('another method is declined with the one that we have, and the reason is told', t => {
  const eap = peer()
  for (const type of [EapType.Md5Challenge, EapType.GenericTokenCard, EapType.Expanded, 200]) {
    const nak = answerOf(eap.handle(request(type, fromHex('00112233'))))
    t.equal(nak.type, EapType.Nak)
    t.strictSame(nak.data, Uint8Array.of(EapType.MsChapV2))
  }
  t.match(whyOf(eap.handle(verdict(EapCode.Failure))), /it wanted 200, we MsChapV2/)
  const willing = peer()
  willing.handle(request(EapType.Md5Challenge, fromHex('00')))
  t.equal(answerOf(willing.handle(challenge())).type, EapType.MsChapV2)
  t.end()
})

t.test('once the method has begun there is no other, and no identity', t => {
  for (const type of [EapType.Identity, EapType.Md5Challenge, EapType.Tls, EapType.Nak]) {
    const eap = peer()
    eap.handle(challenge())
    t.match(whyOf(eap.handle(request(type, fromHex('00')))), /half-way/)
  }
  t.end()
})

t.test('a notification is acknowledged and changes nothing', t => {
  const eap = peer()
  const notification = request(EapType.Notification, utf8('\u001b[31mhello'))
  t.equal(answerOf(eap.handle(notification)).type, EapType.Notification)
  const { data } = answerOf(eap.handle(challenge()))
  t.equal(answerOf(eap.handle(notification)).data.length, 0)
  eap.handle(mschap(3, utf8(`S=${judge(data).proof}`)))
  t.equal(eap.handle(verdict(EapCode.Success)).kind, 'success')
  t.end()
})

t.test('after the method nothing but the verdict', t => {
  for (const late of [
    challenge(),
    request(EapType.Notification, utf8('x')),
    request(1, utf8('')),
  ]) {
    const eap = peer()
    const { data } = answerOf(eap.handle(challenge()))
    eap.handle(mschap(3, utf8(`S=${judge(data).proof}`)))
    t.equal(eap.handle(late).kind, 'failed')
    t.equal(eap.handle(verdict(EapCode.Success)).kind, 'failed')
  }
  t.end()
})

t.test('requests without an end are ended', t => {
  const eap = peer()
  let rounds = 0
  while (eap.handle(request(EapType.Identity, utf8(''))).kind === 'respond') rounds++
  t.equal(rounds, 64)
  t.end()
})

t.test('malformed packets are refused: every length but the right one', t => {
  const packet = challenge()
  for (let length = 0; length < packet.length + 3; length++) {
    const cut = new Uint8Array(length)
    cut.set(packet.subarray(0, length))
    const step = peer().handle(cut)
    t.equal(step.kind, length === packet.length ? 'respond' : 'failed', String(length))
  }
  t.equal(readEapPacket(fromHex('03010005aa')), undefined)
  t.equal(readEapPacket(fromHex('01010004')), undefined)
  t.equal(readEapPacket(fromHex('0501000501')), undefined)
  t.match(whyOf(peer().handle(fromHex('0201000501'))), /EAP response/)
  t.end()
})

t.test('EAP-TLS is handed to the application and its answer handed back', t => {
  const eap = tlsPeer()
  const start = request(EapType.Tls, Uint8Array.of(0x20))
  t.strictSame(eap.handle(start), { kind: 'external', request: start })
  const packet = writeEapPacket({ code: 2, id: 7, type: EapType.Tls, data: Uint8Array.of(0) })
  const msk = new Uint8Array(64).fill(5)
  t.strictSame(eap.resume({ packet, msk }), { kind: 'respond', packet })
  t.strictSame(eap.handle(verdict(EapCode.Success)), { kind: 'success', msk })
  for (const [answer, why] of [
    [undefined, /gave up/],
    [{ why: 'the certificate has expired' }, /expired/],
    [{ packet: fromHex('00') }, /another packet/],
    [{ packet: start }, /another packet/],
    [{ packet: writeEapPacket({ code: 2, id: 8, type: 13, data: msk }) }, /another packet/],
    [{ packet, msk: new Uint8Array(32) }, /no key/],
  ] as const) {
    const other = tlsPeer()
    other.handle(start)
    t.match(whyOf(other.resume(answer)), why)
    t.equal(other.handle(verdict(EapCode.Success)).kind, 'failed')
  }
  t.match(whyOf(tlsPeer().resume({ packet })), /nobody waits/)
  const hasty = tlsPeer()
  hasty.handle(start)
  t.match(whyOf(hasty.handle(start)), /after its end/)
  t.end()
})

t.test('whatever a gateway sends, the peer answers with a step and never throws', t => {
  const random = new Random(20)
  const kinds = new Map<string, number>()
  for (let run = 0; run < 4000; run++) {
    const eap = random.chance(0.8) ? peer() : tlsPeer()
    for (let round = 0; round < 4; round++) {
      const samples = [challenge(), mschap(3, utf8(`S=${'1A'.repeat(20)} M=x`)), verdict(3)]
      samples.push(
        mschap(4, utf8('E=691 R=1 C=00 V=3 M=é')),
        request(random.integer(0, 15), CHALLENGE),
      )
      const bytes = samples[random.integer(0, samples.length - 1)]!
      if (random.chance(0.5)) bytes[random.integer(0, bytes.length - 1)] = random.next() & 0xff
      if (random.chance(0.2)) putU16(bytes, 2, random.integer(0, 40))
      const step = eap.handle(random.chance(0.1) ? bytes.subarray(1) : bytes)
      kinds.set(step.kind, (kinds.get(step.kind) ?? 0) + 1)
    }
  }
  t.strictSame([...kinds.keys()].sort(), ['external', 'failed', 'respond'], 'never a success')
  t.end()
})

t.test('wiping ends it and overwrites the key', t => {
  const eap = tlsPeer()
  eap.handle(request(EapType.Tls, Uint8Array.of(0x20)))
  const packet = writeEapPacket({ code: 2, id: 7, type: EapType.Tls, data: Uint8Array.of(0) })
  eap.resume({ packet, msk: new Uint8Array(64).fill(5) })
  eap.wipe()
  t.equal(whyOf(eap.handle(verdict(EapCode.Success))), 'EAP after its end')
  t.end()
})

t.test('the option eap is checked at the door and errors print no password', t => {
  const settings = parseEap({ method: 'mschapv2', identity: 'alice', password: 'wonderland' })
  t.match(settings, { method: 'mschapv2', identity: 'alice' })
  t.notMatch(JSON.stringify(settings), /wonderland/)
  t.strictSame(parseEap({ method: 'tls', identity: 'a', cert: 'x', key: 'y', ca: 'z' }), {
    method: 'tls',
    only: false,
    identity: 'a',
  })
  const refused: readonly (readonly [unknown, string])[] = [
    [undefined, 'eap'],
    ['mschapv2', 'eap'],
    [[], 'eap'],
    [{}, 'eap.method'],
    [{ method: 'md5' }, 'eap.method'],
    [{ method: 'mschapv2' }, 'eap.identity'],
    [{ method: 'mschapv2', identity: '' }, 'eap.identity'],
    [{ method: 'mschapv2', identity: 'x'.repeat(254) }, 'eap.identity'],
    [{ method: 'mschapv2', identity: 'a' }, 'eap.password'],
    [{ method: 'mschapv2', identity: 'a', password: '' }, 'eap.password'],
    [{ method: 'mschapv2', identity: 'a', password: 'hunter2'.repeat(60) }, 'eap.password'],
    [{ method: 'mschapv2', identity: 'a', password: 5 }, 'eap.password'],
    [{ method: 'mschapv2', identity: 'a', password: 'b', cert: 'x' }, 'eap.cert'],
    [{ method: 'tls', identity: 'a', password: 'x' }, 'eap.password'],
    [{ method: 'tls', identity: 'a', only: 1 }, 'eap.only'],
    [{ method: 'tls', identity: 'a', only: true }, 'eap.servername'],
    [{ method: 'mschapv2', identity: 'a', password: 'x', only: true }, 'eap.only'],
    [Object.create({ method: 'tls', identity: 'a' }), 'eap.method'],
  ]
  for (const [given, option] of refused) {
    try {
      parseEap(given)
      t.fail(`accepted ${JSON.stringify(given)}`)
    } catch (error) {
      t.match(error, { name: 'OptionError', option })
      t.notMatch((error as Error).message, /hunter2/)
    }
  }
  t.end()
})
