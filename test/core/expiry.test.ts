/** An SA does not outlive the certificate that authenticated its peer, whatever the system's clock does meanwhile. */
import t from 'tap'
import { SILENT, type TraceEvent } from '../../lib/base/trace.ts'
import { parseCredentials } from '../../lib/identity/credentials.ts'
import { parsePolicy } from '../../lib/policy/options.ts'
import { authority, endEntity } from '../harness/certificates.ts'
import { PERFECT, Stream, World, type Options } from '../harness/world.ts'

const MINUTE = 60_000
const START = Date.now()
const root = authority('CN=CA', 'P-256')

/** Options of an end whose certificate is valid for so long from the beginning. */
const own = (name: string, lifetime: number): Options => {
  const { pem, keyPem } = endEntity(name, 'P-256', root, { notAfter: START + lifetime })
  return { psk: undefined, ca: root.pem, cert: pem, key: keyPem }
}
const LONG = 20 * 24 * 60 * MINUTE

/** A connection that is used all the time. `step`: how far the system's clock is set off once all is up. */
const open = (client: number, server: number, step = 0) => {
  const seen: TraceEvent[] = []
  const tracer = { ...SILENT, enabled: true, emit: (event: TraceEvent) => void seen.push(event) }
  let offset = 0
  const clock = (): number => START + (world?.now ?? 0) + offset
  let world: World | undefined = undefined as World | undefined
  const options = [
    { ...own('client.test', client), remoteId: 'server.test' },
    own('server.test', server),
  ] as const
  const made = (world = new World(71, PERFECT, ...options, tracer, clock))
  const stream = new Stream(10_000_000, 1, 2)
  stream.budget = 100
  made.connect(stream)
  made.run(1000)
  t.equal(made.accepted.length, 1)
  const { validUntil } = made.sessions.client[0]!.info()
  t.ok(Math.abs(validUntil! - START - server) <= 2000)
  offset = step
  /** Octets go to and fro for so long; when the connection ended, if it did. */
  const use = (minutes: number): number | undefined => {
    for (let i = 0; i < 4 * minutes && !stream.closed; i++) {
      stream.budget = 100
      made.work(made.client, stream)
      made.run(MINUTE / 4, () => stream.closed)
    }
    return stream.closed ? made.now - 1000 : undefined
  }
  const named = (name: string) => seen.filter(event => event.name === name)
  return { world: made, stream, use, named }
}

t.test('the SA ends with the certificate of the server, or of the client', t => {
  for (const [client, server] of [
    [LONG, 30 * MINUTE],
    [30 * MINUTE, LONG],
  ] as const) {
    const { world, stream, use, named } = open(client, server)
    const ended = use(40)
    t.ok(ended !== undefined && ended > 29 * MINUTE && ended < 31 * MINUTE, `${ended}`)
    t.ok(stream.error instanceof Error)
    t.ok(named('ike.certificateEnded').length > 0)
    t.ok(named('ike.established').length > 2, 'it was tried before')
    t.ok(named('ike.established').length < 40, 'and not without end')
    const next = new Stream(10, 1, 2)
    world.connect(next)
    world.run(2000)
    t.match(next.error, { code: 'AUTHENTICATION_FAILED' })
  }
  t.end()
})

t.test('a server whose certificate is renewed in time keeps its connections', t => {
  const { world, use, named } = open(LONG, 30 * MINUTE)
  t.equal(use(15), undefined)
  const options = own('server.test', 24 * 60 * MINUTE)
  world.server.setResponder({
    policy: parsePolicy(options),
    credentials: parseCredentials(options),
  })
  t.equal(use(60), undefined)
  t.strictSame(named('ike.certificateEnded'), [])
  t.end()
})

t.test('a clock that is set forward or back changes nothing in an SA that is up', t => {
  for (const step of [-365 * 24 * 60 * MINUTE, -MINUTE, MINUTE, 40 * 365 * 24 * 60 * MINUTE]) {
    const { use } = open(LONG, LONG, step)
    t.equal(use(60), undefined, `${step}`)
  }
  // A new authentication goes by the clock as it is then, and fails; the SA has its time all the same.
  const ended = open(LONG, 30 * MINUTE, 20 * MINUTE).use(40)
  t.ok(ended !== undefined && ended > 29 * MINUTE && ended < 31 * MINUTE, `${ended}`)
  t.end()
})

t.test('without certificates an SA ends as before', t => {
  const world = new World(72, PERFECT)
  world.connect(new Stream(10, 1, 2))
  world.run(1000)
  t.equal(world.sessions.client[0]!.info().validUntil, undefined)
  t.end()
})
