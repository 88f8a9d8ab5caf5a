/** ike-scan, a stranger that asks for an IKE SA to see what answers, and never goes on. */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import type { Options } from './product.ts'
import type { Context, Scenario } from './scenario.ts'

const execute = promisify(execFile)

/** It offers AES-CBC, 3DES and SHA-1, of which only the first and the last can be named here. */
const LEGACY: Options = { ike: 'aes256-sha1-prfsha1-modp2048' }

const scan = async (context: Context, options: Options, ...args: string[]) => {
  const { server } = await context.listen({ ...options, ikePort: 500 })
  const errors: (Error & { code?: string })[] = []
  server.on('ikeClientError', (error: Error) => errors.push(error))
  const { stdout } = await execute('ip', [
    ...[
      'netns',
      'exec',
      'peer',
      'ike-scan',
      '--sport=0',
      '--retry=2',
      '--timeout=3000',
      '--multiline',
      ...args,
    ],
    '10.90.0.1',
  ])
  return { stdout, errors }
}

const scenario = (name: string, run: (context: Context) => Promise<void>): Scenario => ({
  name,
  role: 'responder',
  peer: 'ike-scan',
  lock: 'nat', // ports 500 and 4500 are one server's at a time
  run,
})

export const scenarios: readonly Scenario[] = [
  scenario('no common IKE proposal', async context => {
    const { stdout, errors } = await scan(context, {}, '--ikev2')
    assert.match(stdout, /Notify message 14 \(NO_PROPOSAL_CHOSEN\)/)
    assert.match(errors[0]?.message ?? '', /offered aes256-aes128-.*prfsha1.*accepted aes256gcm16/)
  }),
  scenario('INVALID_KE_PAYLOAD', async context => {
    const { stdout } = await scan(context, LEGACY, '--ikev2', '--dhgroup=2')
    assert.match(stdout, /Notify message 17 \(INVALID_KE_PAYLOAD\)/)
  }),
  scenario('cookies', async context => {
    const { stdout } = await scan(context, { ...LEGACY, cookieThreshold: 0 }, '--ikev2')
    assert.match(stdout, /Notify message 16390/)
  }),
  scenario('IKE_SA_INIT answered', async context => {
    const { stdout } = await scan(context, LEGACY, '--ikev2', '--dhgroup=14')
    assert.match(stdout, /IKEv2 SA_INIT Handshake returned/)
    assert.match(
      stdout,
      /SA=\(Encr=AES_CBC,KeyLength=256 Prf=HMAC_SHA1 Integ=HMAC_SHA1_96 DH_Group=14/,
    )
  }),
  scenario('IKEv1 is not answered', async context => {
    const { stdout } = await scan(context, LEGACY)
    assert.match(stdout, /1 hosts scanned.*0 returned handshake; 0 returned notify/)
  }),
]
