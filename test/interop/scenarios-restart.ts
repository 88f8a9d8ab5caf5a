/** Our own ends, when the process of the server is killed and another takes its place. */
import assert from 'node:assert/strict'
import { connect, traces, type Options } from './product.ts'
import { Agent, PSK } from './rig.ts'
import { failsWith, SERVER_PORT, SHORT, SLOW, type Context, type Scenario } from './scenario.ts'
import { transfer } from './transfer.ts'

const SERVER = '10.90.0.2'

/** The old socket ends at once, and a new one gets a new SA; `crashes`: the server has shown its token (RFC 6290). */
const restarts = async (context: Context, extra: Options, crashes: boolean): Promise<void> => {
  const options: Options = { psk: PSK, ikePort: context.ikePort, ...extra }
  const processes = ['first', 'second'].map(() => {
    const agent = new Agent('peer')
    context.atEnd(() => agent.kill())
    return agent
  })
  const [first, second] = processes as [Agent, Agent]
  const job = { kind: 'server', options, port: SERVER_PORT, host: SERVER } as const
  await first.run(job)
  // It has loaded everything when its turn comes: whoever is away for seconds is given up without a token.
  await second.run({ ...job, options: { ...options, ikePort: 0 } })
  const to = { ...options, host: SERVER, port: SERVER_PORT, localId: context.clientId }
  const socket = await connect(to)
  const { spiI } = socket.session!.info
  const ended = failsWith(transfer(socket, { ...SLOW, up: 2 ** 30 }), /ECONNRESET/)
  await first.kill()
  await second.run(job)
  await ended
  assert.equal(
    traces.some(line => line.includes(' ike.crashed ') && line.includes(spiI)),
    crashes,
  )
  await transfer(await connect(to), SHORT)
}

const scenario = (name: string, run: (context: Context) => Promise<void>): Scenario => ({
  name,
  role: 'initiator',
  peer: 'ike-socket',
  run,
})

export const scenarios: readonly Scenario[] = [
  scenario('their restart, with quick crash detection', context => restarts(context, {}, true)),
  scenario('their restart, without quick crash detection', context =>
    restarts(context, { crashTokenSecret: false }, false),
  ),
]
