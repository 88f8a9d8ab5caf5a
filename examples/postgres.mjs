// The program `shop.mjs`, which knows nothing of ike-socket, with its PostgreSQL behind IPsec: `ike-socket/register` protects what
// the program sends to the database, `ike-socket forward` stands before that. It wants a PostgreSQL at 127.0.0.1, and PGPORT, PGUSER,
// PGPASSWORD and PGDATABASE as psql does (and `npm ci --prefix examples` before):
//   node examples/postgres.mjs
import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { startForward } from './sidecar.mjs'

/** Where the database stands inside ESP, wherever it is outside. */
const INNER_PORT = 5432
const folder = mkdtempSync(join(tmpdir(), 'ike-'))
process.once('exit', () => rmSync(folder, { recursive: true }))
const save = (name, value) => {
  const file = join(folder, name)
  writeFileSync(file, JSON.stringify(value), { mode: 0o600 })
  return file
}

const psk = randomBytes(32).toString('hex')
const database = save('database.json', {
  psk: { 'shop.internal': psk },
  localId: 'database.internal',
  ikePort: 0,
})
const route = `${INNER_PORT}:127.0.0.1:${process.env.PGPORT ?? 5432}`
const forward = await startForward(database, route)

const rules = [{ action: 'protect', direction: 'out', port: INNER_PORT }]
const env = {
  ...process.env,
  IKE_SOCKET_CONFIG: save('shop.json', {
    psk,
    localId: 'shop.internal',
    remoteId: 'database.internal',
    ikePort: forward.udp,
  }),
  IKE_SOCKET_POLICY: save('policy.json', { rules, default: 'bypass' }),
  PGHOST: '127.0.0.1',
  PGPORT: String(INNER_PORT),
  PORT: '0',
}
const options = { cwd: import.meta.dirname, env, stdio: ['ignore', 'pipe', 'inherit'] }
const shop = spawn(process.execPath, ['--import', 'ike-socket/register', 'shop.mjs'], options)
process.once('exit', () => shop.kill())
const exited = once(shop, 'exit')
const opened = once(createInterface(shop.stdout), 'line').then(([line]) => line)
const line = await Promise.race([opened, exited.then(() => undefined)])
if (line === undefined) throw new Error(`the shop did not open:\n${forward.said.join('\n')}`)
console.log(line)

const url = `http://127.0.0.1:${/\d+$/.exec(line)[0]}/orders`
for (const item of ['tea', 'sugar']) {
  const headers = { 'content-type': 'application/json' }
  await fetch(url, { method: 'POST', headers, body: JSON.stringify({ item }) })
}
console.log(`orders: ${await (await fetch(url)).text()}`)
console.log(`the database says: ${forward.said.at(-1)}`)

shop.kill('SIGTERM')
await exited
await forward.stop()
