// For the examples beside it: brings a TCP service of this host into ESP, as `ike-socket forward -R` does in a shell.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

const folder = dirname(fileURLToPath(import.meta.resolve('ike-socket/package.json')))
/** The command `ike-socket`. */
export const command = join(folder, 'dist/cli/main.js')

/** What it ends with then, after its SAs are deleted. */
const ENDED_BY_SIGTERM = 143

/**
 * Starts it with that configuration file. `route` is `-R`'s: [HOST:]PORT inside ESP, host and port of the service.
 * Resolves when it listens, with its UDP port and `stop`, which rejects when it ended by itself before.
 */
export const startForward = async (config, route, env = process.env) => {
  const words = [command, 'forward', '--json', '--config', config, '-R', route]
  const child = spawn(process.execPath, words, { env, stdio: ['ignore', 'ignore', 'pipe'] })
  const said = []
  const exited = once(child, 'close')
  const endIt = () => child.kill('SIGTERM')
  process.once('exit', endIt)
  child.once('close', () => process.removeListener('exit', endIt))
  const failure = ([code, signal]) =>
    new Error(`ike-socket forward -R ${route} ended with ${signal ?? code}: ${said.join('\n')}`)
  const udp = await new Promise((resolve, reject) => {
    createInterface(child.stderr).on('line', line => {
      said.push(line)
      if (line.startsWith('{"event":"listening"')) resolve(JSON.parse(line).udp)
    })
    exited.then(end => reject(failure(end)), reject)
  })
  const stop = async () => {
    endIt()
    const end = await exited
    if (end[0] !== ENDED_BY_SIGTERM) throw failure(end)
  }
  return { udp, said, stop }
}
