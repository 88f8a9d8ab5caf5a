/** `capture`: the file is what Wireshark reads, with the keys beside it; nothing is written unless asked for. */
import { spawnSync } from 'node:child_process'
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { runCommand } from '../harness/command.ts'
import { packageUrl } from '../harness/package.ts'

const folder = mkdtempSync(join(tmpdir(), 'ike-capture-'))
t.after(() => rmSync(folder, { recursive: true }))
const at = (name: string): string => join(folder, name)
const index = packageUrl('index')
const WORDS = 'these words travel inside ESP'

/** A server and a client in one process, which ends with code 7. */
writeFileSync(
  at('app.mjs'),
  `import { createSecureServer, createSecureSocket } from '${index}'
const psk = 'a key that both of these ends know'
const esp = 'aes256gcm16', ike = 'aes256gcm16-prfsha256-x25519'
const server = createSecureServer({ psk, ikePort: 0, ike, esp }, socket => socket.pipe(socket))
server.listen(0, '127.0.0.1', () => {
  const { port } = server.address()
  const socket = createSecureSocket({ host: '127.0.0.1', port, ikePort: server.ikePort, psk, ike, esp })
  socket.end('${WORDS}')
  socket.resume()
  socket.on('close', () => process.exit(7))
})
`,
)

t.test('pcapng and keys of a program; its exit code; a file that is there stays', async t => {
  const file = at('app.pcapng')
  const args = ['capture', file, '--', process.execPath, at('app.mjs')]
  // On some Nodes tap asks all processes for silence.
  const { code, stderr } = await runCommand(args, { NODE_OPTIONS: '' })
  t.equal(code, 7, stderr)
  t.match(stderr, /^THE KEYS OF ALL SAs OF .* ARE WRITTEN/)
  t.match(stderr, /EVERY DATAGRAM AND THE KEYS OF ALL SAs ARE WRITTEN/, 'by the program too')
  t.match(stderr, `Open it: XDG_CONFIG_HOME='${file}.keys' wireshark '${file}'`)
  const refused = await runCommand(['capture', file, '--json', '--', 'true'])
  t.equal(refused.code, 1)
  t.match(JSON.parse(refused.stderr), { error: `${file} is there already, and stays` })
  t.equal(statSync(file).mode & 0o777, 0o600)
  const keys = join(`${file}.keys`, 'wireshark')
  for (const name of readdirSync(keys))
    t.equal(statSync(join(keys, name)).mode & 0o777, 0o600, name)
  t.equal(statSync(keys).mode & 0o777, 0o700)

  // Blocks: their lengths stand at both ends, and lead to the end of the file.
  const octets = readFileSync(file)
  const types: number[] = []
  for (let place = 0; place < octets.length;) {
    const length = octets.readUInt32LE(place + 4)
    types.push(octets.readUInt32LE(place))
    t.equal(octets.readUInt32LE(place + length - 4), length)
    if (types.at(-1) === 6) {
      const [captured, original] = [
        octets.readUInt32LE(place + 20),
        octets.readUInt32LE(place + 24),
      ]
      t.equal(captured, original)
      t.equal(octets[place + 28], 0x45)
      t.equal(octets.readUInt16BE(place + 30), captured, 'the length in the IP header')
    }
    place += length
  }
  t.strictSame(types.slice(0, 2), [0x0a0d0d0a, 1])
  t.ok(types.length > 12)
  t.notOk(octets.includes(WORDS), 'as it was sent: encrypted')

  const again = await runCommand(args)
  t.match(again, { code: 1, stderr: /app\.pcapng is there already, and stays/ })
  t.ok(readFileSync(file).equals(octets))
})

const hasTshark = spawnSync('tshark', ['--version']).status === 0
t.test(`tshark reads what was sent${hasTshark ? '' : ' (skipped: it is not here)'}`, async t => {
  if (!hasTshark) return
  const file = at('app.pcapng')
  const read = (config: string, filter: string, field: string): string =>
    spawnSync('tshark', ['-r', file, '-Y', filter, '-T', 'fields', '-e', field], {
      encoding: 'utf8',
      env: { ...process.env, HOME: config, XDG_CONFIG_HOME: config },
    }).stdout
  const keys = `${file}.keys`
  const shown = Buffer.from(read(keys, 'tcp.len > 0', 'tcp.payload').replace(/\s/g, ''), 'hex')
  t.ok(shown.includes(WORDS), 'ESP is decrypted')
  t.match(read(keys, 'isakmp.id.data.ipv4_addr', 'isakmp.exchangetype'), /35/, 'IKE_AUTH is too')
  t.equal(read(at('none'), 'tcp.len > 0', 'tcp.payload'), '', 'not without the keys')
})

t.test('nothing is written unless asked for; what cannot be run is named', async t => {
  spawnSync(process.execPath, [at('app.mjs')], { cwd: folder })
  t.strictSame(readdirSync(folder).sort(), ['app.mjs', 'app.pcapng', 'app.pcapng.keys'])
  for (const args of [[], [at('x')], [at('x'), '--'], ['--', 'node'], [at('x'), 'node']])
    t.equal((await runCommand(['capture', ...args])).code, 2, args.join(' '))
  t.equal((await runCommand(['capture', at('x'), '--', at('nothing')])).code, 1)
  const quiet = await runCommand(['capture', at('x'), '--', process.execPath, '--help'])
  t.match(quiet, { code: 0, stderr: /nothing was captured/ }, 'options of the program are its own')
  t.notOk(existsSync(at('x')))
})
