/** Run as a worker of a cluster, or as a thread: listens on a UDP port with others, and echoes behind its name. */
import cluster from 'node:cluster'
import { parentPort, workerData } from 'node:worker_threads'
import { createSecureServer, type SecureServerOptions } from '../../lib/index.ts'

export interface PortWorkerData {
  readonly name: string
  readonly options: SecureServerOptions
  readonly port: number
  /** Counts what came, a moment after it was answered. */
  readonly answered?: Int32Array
}

const given = cluster.isWorker ? process.env['PORT_WORKER'] : undefined
const { name, options, port, answered } =
  given === undefined ? (workerData as PortWorkerData) : (JSON.parse(given) as PortWorkerData)
const tell = (message: string): void => {
  if (parentPort === null) process.send?.(message)
  else parentPort.postMessage(message)
}

const noteAnswered = (answered: Int32Array): void => {
  Atomics.add(answered, 0, 1)
  Atomics.notify(answered, 0)
}

const server = createSecureServer(options, socket => {
  socket.on('error', () => undefined)
  socket.write(name)
  if (answered !== undefined) {
    socket.on('data', () => setTimeout(noteAnswered, 50, answered))
  }
  socket.pipe(socket)
})
server.on('error', error => tell(`${(error as NodeJS.ErrnoException).code}: ${error.message}`))
server.listen(port, '127.0.0.1', () => tell('listening'))
parentPort?.on('message', () => server.close(() => process.exit()))
