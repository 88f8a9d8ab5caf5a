// Programs of Node that a row runs, with what they said.
import { spawn } from 'node:child_process'
import { once } from 'node:events'

/** Far beyond what a program needs, also where the machine has much else to do. */
const PROGRAM_MS = 120_000

/**
 * Starts one. `output()` is what it said until now; `ready(words)` resolves when it has said that; `end` resolves with the
 * exit code, or the signal, when it is over.
 */
export const startProgram = (words, env) => {
  const child = spawn(process.execPath, words, { env, timeout: PROGRAM_MS, killSignal: 'SIGKILL' })
  const endIt = () => child.kill('SIGKILL')
  process.once('exit', endIt)
  child.once('close', () => process.removeListener('exit', endIt))
  let output = ''
  const waiting = []
  const look = () => waiting.forEach(each => output.includes(each.words) && each.resolve())
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', text => {
      output += text
      look()
    })
  const end = once(child, 'close').then(([code, signal]) => signal ?? code)
  const ready = words => {
    const said = new Promise(resolve => waiting.push({ words, resolve }))
    look()
    const early = end.then(status => {
      throw new Error(`${status}: ${output}`)
    })
    return Promise.race([said, early])
  }
  return { child, end, ready, output: () => output }
}

/** Runs one to its end. */
export const runProgram = async (words, env) => {
  const program = startProgram(words, env)
  return { status: await program.end, output: program.output() }
}
