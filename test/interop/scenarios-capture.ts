/** What a stranger with a packet capture sees: tshark must find IKEv2 and ESP, and with our key log the contents. */
import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { connect, keyLog, type Options } from './product.ts'
import { PEER_PORT, RUN, until } from './rig.ts'
import { SHORT, type Context, type Scenario } from './scenario.ts'
import { transfer } from './transfer.ts'

const execute = promisify(execFile)

/** Records the UDP port while `act` runs. */
const record = async (
  context: Context,
  port: number,
  act: () => Promise<void>,
): Promise<string> => {
  const file = join(RUN, `${context.name}.pcap`)
  const tshark = spawn('tshark', ['-q', '-i', 'any', '-f', `udp port ${port}`, '-w', file], {
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  let said = ''
  tshark.stderr.on('data', chunk => (said += String(chunk)))
  context.atEnd(() => tshark.kill('SIGKILL'))
  await until('tshark records', 10_000, () => said.includes('Capturing on'))
  await sleep(300) // it says so a little before it does
  await act()
  await sleep(500)
  tshark.kill('SIGINT')
  await once(tshark, 'exit')
  return file
}

/** One array of fields for each packet that `filter` shows. */
const decode = async (
  file: string,
  port: number,
  filter: string,
  fields: readonly string[],
  config = join(RUN, 'no-keys'),
): Promise<string[][]> => {
  const { stdout } = await execute(
    'tshark',
    [
      ...['-r', file, '-d', `udp.port==${port},udpencap`, '-Y', filter, '-T', 'fields'],
      ...['-o', 'esp.enable_encryption_decode:TRUE', '-o', 'esp.enable_authentication_check:TRUE'],
      ...fields.flatMap(field => ['-e', field]),
    ],
    { maxBuffer: 1 << 26, env: { ...process.env, HOME: config, XDG_CONFIG_HOME: config } },
  )
  return stdout
    .split('\n')
    .filter(Boolean)
    .map(line => line.split('\t'))
}

const scenario = (
  name: string,
  role: Scenario['role'],
  run: (context: Context) => Promise<void>,
): Scenario => ({
  name,
  role,
  peer: 'strongSwan',
  seconds: 40,
  run,
})

const talk = async (
  context: Context,
  role: Scenario['role'],
  { ike, esp, ...extra }: Options = {},
): Promise<void> => {
  if (role === 'initiator')
    return transfer(await connect(context.client(11, { ike, esp, ...extra })), SHORT)
  await context.listen(extra)
  await context.fetch({
    connection: ike === undefined ? '' : `proposals = ${String(ike)}`,
    child: esp === undefined ? '' : `esp_proposals = ${String(esp)}`,
  })
}

const portOf = (context: Context, role: Scenario['role']): number =>
  role === 'initiator' ? PEER_PORT : context.ikePort

const ours = (context: Context, role: Scenario['role']): string =>
  // Other scenarios use the same port of strongSwan's: only what belongs to the recorded transfer counts.
  role === 'initiator' ? 'udp' : `udp.port == ${context.ikePort}`

const SUITES = [
  { name: 'AES-GCM', ike: 'aes256gcm16-prfsha256-x25519', esp: 'aes256gcm16' },
  { name: 'AES-CBC', ike: 'aes128-sha256-prfsha256-x25519', esp: 'aes256-sha512' },
]

export const scenarios: readonly Scenario[] = (['initiator', 'responder'] as const).flatMap(
  role => [
    scenario('tshark sees IKEv2 and ESP', role, async context => {
      const port = portOf(context, role)
      const file = await record(context, port, () => talk(context, role))
      const ike = await decode(file, port, `isakmp && ${ours(context, role)}`, [
        'isakmp.version',
        'isakmp.exchangetype',
      ])
      assert.ok(
        ike.some(([version, type]) => version === '0x20' && type === '34'),
        'IKE_SA_INIT',
      )
      assert.ok(
        ike.some(([version, type]) => version === '0x20' && type === '35'),
        'IKE_AUTH',
      )
      const esp = await decode(file, port, `esp && ${ours(context, role)}`, [
        'esp.spi',
        'esp.sequence',
      ])
      assert.ok(esp.length > 100, `${esp.length} ESP packets`)
      const other = await decode(file, port, `_ws.malformed && ${ours(context, role)}`, [
        'frame.number',
        'frame.protocols',
      ])
      assert.deepEqual(other, [], 'nothing is malformed')
    }),
    ...SUITES.map(({ name, ike, esp }) =>
      scenario(`tshark decrypts with our key log, ${name}`, role, async context => {
        const port = portOf(context, role)
        const config = join(RUN, `${context.name}-keys`)
        const file = await record(context, port, () =>
          talk(context, role, { ...keyLog(join(config, 'wireshark')), ike, esp }),
        )
        const auth = await decode(
          file,
          port,
          'isakmp.exchangetype == 35 && isakmp.auth.method',
          ['isakmp.auth.method'],
          config,
        )
        assert.ok(auth.length >= 2, 'both AUTH payloads are readable')
        const inner = await decode(file, port, 'esp && tcp', ['tcp.port', 'esp.icv_good'], config)
        assert.ok(inner.length > 100, `${inner.length} inner TCP segments`)
        const wrong = inner.filter(([, good]) => good !== '1')
        assert.deepEqual(wrong, [], 'every ICV is right')
      }),
    ),
  ],
)
