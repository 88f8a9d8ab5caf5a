/** Broken set-ups with real sockets, of which `ike-socket doctor` names the cause. */
import dgram from 'node:dgram'
import { once } from 'node:events'
import t from 'tap'
import { Diagnostician, type Step } from '../../lib/cli/diagnose.ts'
import { createSecureServer } from '../../lib/index.ts'
import { OTHERS, type OtherSetUp } from './others.ts'
import { openWay } from './relay.ts'

/** A busy machine is as slow as a way can be, and then `doctor` says that instead. */
const TOO_SLOW = /is too slow for more|it took too long/
const MOST_TIMES = 3

interface Finding {
  readonly steps: readonly Step[]
  readonly cause: Step | undefined
}

/** Something at a UDP port that is no server of ours. */
const answerWith = async (responder: (request: Buffer) => Buffer): Promise<dgram.Socket> => {
  const socket = dgram.createSocket('udp4').bind(0, '127.0.0.1')
  socket.on('message', (request, { port, address }) =>
    socket.send(responder(request), port, address),
  )
  await once(socket, 'listening')
  return socket
}

const examine = async ({
  server: given,
  client,
  way,
  delay,
  responder,
}: OtherSetUp): Promise<Finding> => {
  const server = createSecureServer({ ikePort: 0, ...given }, socket => {
    socket.on('error', () => {})
    socket.end()
  })
  server.on('ikeClientError', () => {})
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const relay =
    way === undefined && delay === undefined
      ? undefined
      : await openWay(server.ikePort!, way?.() ?? (() => true), delay)
  const other = responder === undefined ? undefined : await answerWith(responder)
  const target = {
    port: server.address()!.port,
    ikePort: relay?.port ?? other?.address().port ?? server.ikePort!,
    ...client,
    host: client.host ?? '127.0.0.1',
  }
  const finding = await new Diagnostician(target, { report: () => {} }).run()
  relay?.close()
  other?.close()
  server.close()
  return finding
}

const sentence = ({ says, cure = '' }: Step): string => `${says}. ${cure}`

// Nearly all of it is silence that is waited for, so many run at once.
t.jobs = 12

const examineInTime = async (setUp: OtherSetUp): Promise<Finding> => {
  for (let times = 1; ; times++) {
    const finding = await examine(setUp)
    const isWanted = TOO_SLOW.test(`${setUp.says} ${setUp.also}`)
    const isSlow = finding.steps.some(step => TOO_SLOW.test(sentence(step)))
    if (isWanted || !isSlow || times === MOST_TIMES) return finding
  }
}

for (const setUp of OTHERS) {
  t.test(setUp.name, { buffered: true }, async t => {
    const { steps, cause } = await examineInTime(setUp)
    const text = cause === undefined ? 'all is well' : `${cause.name}: ${sentence(cause)}`
    t.match(text, setUp.says)
    const lines = steps.map(step => `${step.name} ${step.state}: ${sentence(step)}`)
    const { also } = setUp
    if (also !== undefined)
      t.ok(
        lines.some(line => also.test(line)),
        `${also}`,
        { lines },
      )
    if (setUp.marks === undefined) return
    const about = steps.find((_step, at) => also?.test(lines[at]!)) ?? cause
    t.match(about?.parts?.map(({ state, says }) => `${state} ${says}`).join('\n'), setUp.marks)
  })
}
