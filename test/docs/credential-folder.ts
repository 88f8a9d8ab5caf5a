/** The folder `ike-keys` that examples in the documentation name: what `ike-socket keygen` writes, and some more. */
import { spawnSync } from 'node:child_process'
import { createPrivateKey, createPublicKey } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { packageFile } from '../harness/package.ts'

/** False where there is no openssl: then `client.p12` is missing. */
export let hasPkcs12 = false

/** Makes `ike-keys` in that folder and returns the folder. `names` and `client` are the identities of server and client. */
export const makeCredentialFolder = (
  folder: string,
  names = 'localhost',
  client = 'client',
): string => {
  const run = (command: string, ...args: readonly string[]): boolean =>
    spawnSync(command, args, { cwd: folder }).status === 0
  const main = packageFile('cli/main')
  const keygen = ['keygen', 'ike-keys', '--type', 'ed25519', '--server', names, '--client', client]
  if (!run(process.execPath, main, ...keygen, '--ip', '127.0.0.1,::1'))
    throw new Error('ike-socket keygen has failed')
  const keys = join(folder, 'ike-keys')
  const key = createPrivateKey(readFileSync(join(keys, 'client-ed25519.key')))
  const passphrase = 'open sesame'
  writeFileSync(
    join(keys, 'encrypted.key'),
    key.export({ type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase }),
  )
  const orders = createPublicKey(readFileSync(join(keys, 'server-ed25519.key')))
  writeFileSync(join(keys, 'orders.pub'), orders.export({ type: 'spki', format: 'pem' }))
  const [own, ca] = ['ike-keys/client-ed25519', 'ike-keys/ca.crt'] as const
  hasPkcs12 = run(
    'openssl',
    ...['pkcs12', '-export', '-in', `${own}.crt`, '-inkey', `${own}.key`, '-certfile', ca],
    ...['-passout', `pass:${passphrase}`, '-out', 'ike-keys/client.p12'],
  )
  return folder
}
