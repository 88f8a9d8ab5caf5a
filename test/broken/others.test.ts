/** Broken set-ups with real sockets, of which `ike-socket doctor` names the cause. */
import { once } from 'node:events'
import t from 'tap'
import { Diagnostician, type Step } from '../../lib/cli/diagnose.ts'
import { createSecureServer } from '../../lib/index.ts'
import { OTHERS, type OtherSetUp } from './others.ts'
import { openWay } from './relay.ts'

interface Finding {
  readonly steps: readonly Step[]
  readonly cause: Step | undefined
}

const examine = async ({ server: given, client, way }: OtherSetUp): Promise<Finding> => {
  const server = createSecureServer({ ikePort: 0, ...given }, socket => {
    socket.on('error', () => {})
    socket.end()
  })
  server.on('ikeClientError', () => {})
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const relay = way && (await openWay(server.ikePort!, way()))
  const target = {
    port: server.address()!.port,
    ikePort: relay?.port ?? server.ikePort!,
    ...client,
    host: client.host ?? '127.0.0.1',
  }
  const finding = await new Diagnostician(target, { report: () => {} }).run()
  relay?.close()
  server.close()
  return finding
}

const sentence = ({ says, cure = '' }: Step): string => `${says}. ${cure}`

// Some of them are silence that is waited for, so a few run at once; more would take each other's time.
t.jobs = 5

for (const setUp of OTHERS) {
  t.test(setUp.name, { buffered: true }, async t => {
    const { steps, cause } = await examine(setUp)
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
