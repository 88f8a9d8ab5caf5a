// examples/shop.mjs, a program of Express and pg that knows nothing of us, between its customer and a real PostgreSQL, under a
// policy and before a sniffer. The shop and the database have addresses of their own, so that all between them can be heard.
import { randomInt } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { startForward } from '../../examples/sidecar.mjs'
import { runProgram, startProgram } from './programs.mjs'
import { freeTcpPort } from './servers.mjs'
import { kindOf, sniff } from './sniffer.mjs'

const REGISTER = ['--import', 'ike-socket/register']
const CUSTOMER = fileURLToPath(new URL('customer.mjs', import.meta.url))

/** The system itself tells whom a last datagram did not reach; it quotes it as it was. */
const PROTECTED = new Set(['IKE', 'ESP', 'keepalive', 'ICMP about IKE', 'ICMP about ESP'])

/** An address of the loopback that nobody else is likely to use. */
export const ownAddress = () => `127.${randomInt(1, 255)}.${randomInt(255)}.${randomInt(1, 255)}`

/** Orders under that action; resolves with the frames that were heard. */
const trade = async (action, item, { folder, env, database, port }) => {
  const [shop, shopPort] = [ownAddress(), await freeTcpPort()]
  const policy = join(folder, 'shop-policy.json')
  const rules = [{ action, address: [shop, database] }]
  writeFileSync(policy, JSON.stringify({ rules, default: 'discard' }))
  const all = {
    ...env,
    IKE_SOCKET_POLICY: policy,
    HOST: shop,
    PORT: `${shopPort}`,
    PGHOST: database,
    PGPORT: `${port}`,
    PGUSER: 'postgres',
  }
  const sniffer = await sniff([shop, database])
  const ends = [sniffer.stop]
  try {
    // Where the database stands inside ESP; behind that it is at 127.0.0.1.
    const route = `${database}:${port}:127.0.0.1:${port}`
    const forward = await startForward(env.IKE_SOCKET_CONFIG, route, env)
    ends.push(forward.stop)
    const program = startProgram([...REGISTER, 'shop.mjs'], all)
    ends.push(() => {
      program.child.kill('SIGTERM')
      return program.end
    })
    await program.ready('the shop is open')
    const url = `http://${shop}:${shopPort}`
    const { status, output } = await runProgram([...REGISTER, CUSTOMER, url, item], all)
    if (status !== 0 || !output.includes(`"item":"${item}"`))
      throw new Error(
        `${action}: ${status}: ${output}${program.output()}${forward.said.join('\n')}`,
      )
    return await sniffer.finish()
  } finally {
    for (const end of ends.reverse()) await end()
  }
}

const count = values =>
  values.reduce((sums, value) => ({ ...sums, [value]: (sums[value] ?? 0) + 1 }), {})

/**
 * Under PROTECT only IKE and ESP may be heard, and what was ordered nowhere. The same sniffer must hear it under BYPASS:
 * then it would have heard it. Resolves with what was heard.
 */
export const tradeUnheard = async (facts, ikePort) => {
  const item = `${randomInt(1e9)} apples of gold`
  const kinds = frames => count(frames.map(frame => kindOf(frame, ikePort)))
  const told = frames => frames.filter(frame => frame.includes(item)).length

  const clear = await trade('bypass', item, facts)
  const open = kinds(clear)
  // The order goes to the shop and on to the database, and back both ways.
  if (told(clear) < 4 || open.IKE !== undefined || open.ESP !== undefined)
    throw new Error(`under BYPASS the sniffer hears ${JSON.stringify(open)}`)

  const secret = await trade('protect', item, facts)
  const closed = kinds(secret)
  const others = Object.keys(closed).filter(kind => !PROTECTED.has(kind))
  if (!(closed.IKE > 0 && closed.ESP > 0) || others.length > 0 || told(secret) > 0)
    throw new Error(`under PROTECT the sniffer hears ${JSON.stringify(closed)}`)
  return `${clear.length} clear packets under BYPASS, ${JSON.stringify(closed)} under PROTECT`
}
