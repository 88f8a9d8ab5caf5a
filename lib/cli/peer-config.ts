/** `ike-socket peer-config`: the configuration of the other end, of another product, from that of ours. */
import { writeFileSync } from 'node:fs'
import { configuration } from '../api/configuration.ts'
import { createSecureContext } from '../api/options.ts'
import { columns, JSON_OPTION, JSON_ROW, type Command } from './command.ts'
import { requireConfiguration } from './configuration-file.ts'
import { readPlan } from './peer-plan.ts'
import { PRODUCTS, type Product } from './peer-products.ts'
import { json } from './terminal.ts'
import { parseArguments, UsageError } from './usage.ts'

const OPTIONS = {
  config: { type: 'string', completes: 'files' },
  as: { type: 'string', completes: ['client', 'server'] },
  address: { type: 'string' },
  peer: { type: 'string' },
  cert: { type: 'string' },
  ca: { type: 'string' },
  out: { type: 'string', completes: 'files' },
  force: { type: 'boolean' },
  ...JSON_OPTION,
} as const

const NAMES = Object.keys(PRODUCTS) as readonly Product[]
/** What a context does not read, and stands in a configuration. */
const PLACES = ['gateway', 'ikePort', 'encrypted', 'control'] as const

const run = (args: readonly string[]): void => {
  const { values, positionals } = parseArguments(args, OPTIONS)
  const [name, ...more] = positionals
  const product = NAMES.find(known => known === name)
  if (product === undefined || more.length > 0)
    throw new UsageError(`peer-config wants one of ${NAMES.join(', ')}`)
  const as = values.as ?? (['windows', 'android', 'ios'].includes(product) ? 'server' : 'client')
  if (as !== 'client' && as !== 'server') throw new UsageError(`--as ${as}: client or server`)
  requireConfiguration(values.config).load()
  const given = configuration()
  // A wrong option is told before anything is made of it.
  createSecureContext(
    Object.fromEntries(
      Object.entries(given).filter(([option]) => !(PLACES as readonly string[]).includes(option)),
    ),
  )
  const { address, peer, cert: certificate, ca: authority } = values
  const plan = readPlan(given, { as, address, peer, certificate, authority })
  const text = PRODUCTS[product](plan)
  const { out } = values
  // It may hold the key.
  if (out !== undefined)
    writeFileSync(out, text, { mode: 0o600, flag: values.force === true ? 'w' : 'wx' })
  if (values.json === true)
    process.stdout.write(
      `${json(out === undefined ? { product, text } : { product, file: out })}\n`,
    )
  else if (out === undefined) process.stdout.write(text)
}

export const peerConfigCommand: Command = {
  name: 'peer-config',
  summary: 'the configuration of the other end, for another product',
  options: OPTIONS,
  words: NAMES,
  help: `Usage: ike-socket peer-config PRODUCT [options]

Prints what the other end must have so that ours, as FILE says, meets it. PRODUCT is ${NAMES.join(', ')}.
With a pre-shared key the text HOLDS THE KEY. strongSwan and libreswan have been tested with it, and
OpenIKED's own check accepts it; the others are written by their documentation alone.

Options:
${columns([
  ['--config FILE', 'our options, as JSON (IKE_SOCKET_CONFIG)'],
  ['--as ROLE', 'ours is the client or the server (client; server for windows, android and ios)'],
  ['--peer ADDRESS', 'of the other end ("gateway")'],
  ['--address ADDRESS', 'of our end, as the other one reaches it'],
  [
    '--cert FILE',
    "name of the other end's certificate there (server-ecdsa.crt or client-ecdsa.crt)",
  ],
  ['--ca FILE', 'name of the authority there (ca.crt)'],
  ['--out FILE', 'write there, for the owner alone; a file that is there stays'],
  ['--force', 'replace the file'],
  JSON_ROW,
  ['--help', 'this text'],
])}
Examples:
  ike-socket peer-config strongswan --config ike.json --peer vpn.example.com
  ike-socket peer-config ios --config server.json --address vpn.example.com --out vpn.mobileconfig

Exit code 0: done; 1: it could not be done; 2: the command line, or what the product cannot do, was not understood.
`,
  run,
}
