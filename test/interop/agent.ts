/**
 * Runs transfers, servers and commands in another network namespace, in the guest, or to be killed: the far end of
 * `Agent` and `Guest` in rig.ts. With a port as its argument it takes its jobs there, as lines of JSON, else from its parent.
 */
import { execFile } from 'node:child_process'
import { connect as kernelConnect, createServer, type Socket } from 'node:net'
import { createInterface } from 'node:readline'
import { promisify } from 'node:util'
import type { Options } from './product.ts'
import { answer, transfer, type Plan } from './transfer.ts'

export type Job =
  /** A kernel TCP connection, protected by whoever routes it. */
  | { kind: 'kernel'; host: string; port: number; localAddress?: string; plan: Plan }
  /** A kernel TCP server, until the process ends. */
  | { kind: 'kernel server'; port: number }
  /** A connection of the product. */
  | { kind: 'product'; options: Options; plan: Plan }
  /** A server of the product, until the process ends; `host`: at that address alone. */
  | { kind: 'server'; options: Options; port: number; host?: string }
  /** A program; its output is the answer. */
  | { kind: 'command'; file: string; args: readonly string[] }

/** What comes back for a job: how far it is, and then how it ended. */
export interface Message {
  readonly id: number
  readonly progress?: number
  readonly output?: string
  readonly error?: string
  readonly code?: string
}

interface Request {
  readonly id: number
  readonly job: Job
}

const execute = promisify(execFile)

const command = async (file: string, args: readonly string[]): Promise<string> => {
  try {
    const { stdout, stderr } = await execute(file, args, { maxBuffer: 1 << 24 })
    return stdout + stderr
  } catch (error) {
    const { stdout = '', stderr = '', message } = error as Error & Record<string, string>
    throw new Error(`${message}\n${stdout}${stderr}`.trim().slice(-3000), { cause: error })
  }
}

const run = async (job: Job, progress: (sent: number) => void): Promise<string | void> => {
  // The product is loaded where it is needed: in the guest that would take seconds.
  switch (job.kind) {
    case 'kernel':
      return transfer(
        kernelConnect({
          host: job.host,
          port: job.port,
          noDelay: true,
          ...(job.localAddress === undefined ? {} : { localAddress: job.localAddress }),
        }),
        job.plan,
        progress,
      )
    case 'kernel server':
      return new Promise((resolve, reject) => {
        createServer(answer).once('error', reject).listen(job.port, resolve)
      })
    case 'product': {
      const { connect } = await import('./product.ts')
      return transfer(await connect(job.options), job.plan, progress)
    }
    case 'server': {
      const { listen } = await import('./product.ts')
      await listen(job.options, job.port, answer, job.host)
      return
    }
    case 'command':
      return command(job.file, job.args)
  }
}

const serve = ({ id, job }: Request, report: (message: Message) => void): void => {
  run(job, sent => report({ id, progress: sent })).then(
    output => report({ id, output: output ?? '' }),
    (error: Error & { code?: string }) =>
      report({
        id,
        error: error.message,
        ...(error.code === undefined ? {} : { code: error.code }),
      }),
  )
}

const port = process.argv[2]
if (port === undefined) {
  process.on('message', (request: Request) => serve(request, message => process.send?.(message)))
} else {
  createServer((socket: Socket) => {
    socket.on('error', () => {})
    createInterface(socket).on('line', line =>
      serve(JSON.parse(line) as Request, message => socket.write(`${JSON.stringify(message)}\n`)),
    )
  }).listen(Number(port))
}
