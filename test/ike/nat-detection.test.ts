import t from 'tap'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import type { Path } from '../../lib/base/path.ts'
import { natDetectionPayloads, natVerdict } from '../../lib/ike/nat-detection.ts'
import type { Payload } from '../../lib/wire/payloads.ts'
import { seededEnvironment } from '../harness/random.ts'

const SPI_I = new Uint8Array(8).fill(1)
const SPI_R = new Uint8Array(8).fill(2)
const HERE = Uint8Array.of(192, 0, 2, 1)
const THERE = Uint8Array.of(192, 0, 2, 2)

const path = (localAddress: Uint8Array, remoteAddress: Uint8Array): Path => ({
  socket: 0,
  localAddress,
  localPort: 4500,
  remoteAddress,
  remotePort: 4500,
  isUnmarked: false,
})

const fromPeer = (): Payload[] =>
  natDetectionPayloads(seededEnvironment(1), 'node', SPI_I, SPI_R, path(THERE, HERE))

t.test('the hash of where the peer has sent to says where we are', t => {
  const verdict = natVerdict('node', fromPeer(), SPI_I, SPI_R, path(HERE, THERE))
  t.equal(verdict.localBehindNat, false)
  // Our own ends say nothing of where they are (RFC 7296 §2.23).
  t.equal(verdict.remoteBehindNat, true)
  t.equal(verdict.cameTo(HERE), true)
  t.equal(verdict.cameTo(THERE), false)
  const moved = natVerdict('node', fromPeer(), SPI_I, SPI_R, path(THERE, THERE))
  t.equal(moved.localBehindNat, true)
  t.end()
})

t.test('of an address that is not known, and of a peer that does not say, nothing is told', t => {
  const verdict = natVerdict('node', fromPeer(), SPI_I, SPI_R, path(new Uint8Array(0), THERE))
  t.equal(verdict.localBehindNat, false)
  const silent = natVerdict('node', [], SPI_I, SPI_R, path(HERE, THERE))
  t.same(
    [silent.localBehindNat, silent.remoteBehindNat, silent.seenAs, silent.cameTo(HERE)],
    [false, false, undefined, false],
  )
  t.end()
})

t.test('the verdict, which lives as long as its SA, does not keep the message', async t => {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  const judge = (): { message: WeakRef<object>; verdict: object } => {
    const message = fromPeer()
    const verdict = natVerdict('node', message, SPI_I, SPI_R, path(HERE, THERE))
    return { message: new WeakRef(message), verdict }
  }
  const { message, verdict } = judge()
  await new Promise(resolve => setImmediate(resolve))
  collect()
  t.equal(message.deref(), undefined)
  t.ok(verdict)
})
