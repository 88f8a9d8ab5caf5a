/** Runs transfers and servers in another network namespace, or to be killed: the far end of `Agent` in rig.ts. */
import { connect as kernelConnect } from 'node:net'
import { connect, listen, type Options } from './product.ts'
import { answer, transfer, type Plan } from './transfer.ts'

export type Job =
  /** A kernel TCP connection, protected by whoever routes it. */
  | { kind: 'kernel'; host: string; port: number; localAddress?: string; plan: Plan }
  /** A connection of the product. */
  | { kind: 'product'; options: Options; plan: Plan }
  /** A server of the product, until the process ends. */
  | { kind: 'server'; options: Options; port: number }

const report = (message: object): void => void process.send?.(message)

const run = async (id: number, job: Job): Promise<void> => {
  const progress = (sent: number): void => report({ id, progress: sent })
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
    case 'product':
      return transfer(await connect(job.options), job.plan, progress)
    case 'server':
      await listen(job.options, job.port, answer)
  }
}

process.on('message', ({ id, job }: { id: number; job: Job }) => {
  run(id, job).then(
    () => report({ id, done: true }),
    (error: Error & { code?: string }) => report({ id, error: error.message, code: error.code }),
  )
})
