/** Asks a process that has a control socket. It may be another user's, so nothing that it says may steer a terminal. */
import { connect } from 'node:net'
import { plain } from './terminal.ts'

/** Ours: octets of an answer, some ten thousand sessions. */
const LONGEST_ANSWER = 64 << 20
const TIMEOUT = 5000

/** The answer of the process behind that socket to one command. */
export const askControl = (path: string, command: string): Promise<Record<string, unknown>> =>
  new Promise((resolve, reject) => {
    const socket = connect({ path })
    const chunks: Buffer[] = []
    let length = 0
    const fail = (words: string): void => {
      socket.destroy()
      reject(new Error(`${path}: ${words}`))
    }
    socket.setTimeout(TIMEOUT, () => fail(`no answer within ${TIMEOUT / 1000} s`))
    socket.on('error', (error: NodeJS.ErrnoException) => fail(causeOf(error)))
    socket.on('end', () => fail('the process has closed the socket'))
    socket.on('connect', () => socket.write(`${JSON.stringify({ command })}\n`))
    socket.on('data', (chunk: Buffer) => {
      length += chunk.length
      if (length > LONGEST_ANSWER) return fail('the answer is too long')
      chunks.push(chunk)
      if (!chunk.includes(10)) return
      socket.destroy()
      const [line] = Buffer.concat(chunks).toString('utf8').split('\n', 1) as [string]
      try {
        const answer = JSON.parse(line) as Record<string, unknown>
        if (typeof answer['error'] === 'string') fail(plain(answer['error']))
        else resolve(answer)
      } catch {
        fail('the answer is not JSON')
      }
    })
  })

const causeOf = ({ code, message }: NodeJS.ErrnoException): string => {
  if (code === 'ENOENT')
    return 'there is no such socket. Start the program with IKE_SOCKET_CONTROL set to this path'
  if (code === 'ECONNREFUSED') return 'nobody answers: the process that made it has ended'
  if (code === 'EACCES') return 'only its owner may connect'
  return message
}
