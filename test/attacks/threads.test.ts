/** Worker threads: each has SAs of its own, and none can be handed to another, so no IV is used twice under a key. */
import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import t from 'tap'
import { toHex } from '../../lib/base/bytes.ts'
import type { KeyLogEntry } from '../../lib/base/trace.ts'
import { createSecureServer, createSecureSocket } from '../../lib/index.ts'
import { packageUrl } from '../harness/package.ts'

const psk = 'a pre-shared key for these threads'
const index = JSON.stringify(packageUrl('index'))
const PROGRAM = `
import { parentPort, workerData } from 'node:worker_threads'
import { createSecureSocket } from ${index}
const socket = createSecureSocket(workerData)
let text = ''
socket.on('data', data => (text += data)).on('close', () => parentPort.postMessage(text))`

t.test(
  'L5: threads with the same options have other keys, and an SA cannot be given to a thread',
  async t => {
    const keys: string[] = []
    const keyLog = (entry: KeyLogEntry): void => {
      if (entry.kind === 'esp') keys.push(toHex(entry.encryptionKey))
      else keys.push(toHex(entry.skEi), toHex(entry.skEr))
    }
    const server = createSecureServer({ psk, ikePort: 0, keyLog }, socket => socket.end('hello'))
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { port } = server.address()!
    const options = { host: '127.0.0.1', port, ikePort: server.ikePort!, psk }
    const url = new URL(`data:text/javascript,${encodeURIComponent(PROGRAM)}`)
    await Promise.all(
      [1, 2].map(async () => {
        const worker = new Worker(url, { workerData: options })
        const ended = once(worker, 'exit')
        t.strictSame(await once(worker, 'message'), ['hello'])
        await ended
      }),
    )
    t.equal(keys.length, 8, 'two IKE SAs and two Child SAs, each with two keys')
    t.equal(new Set(keys).size, keys.length)
    const socket = createSecureSocket(options)
    await once(socket, 'connect')
    for (const shared of [socket, socket.session, server]) {
      let copied: unknown
      try {
        copied = structuredClone(shared)
      } catch (error) {
        copied = error
      }
      // What is copied, if anything, has no key and cannot send.
      t.notMatch(JSON.stringify(Object.getOwnPropertyNames(copied)), /write|session|key/i)
      t.notOk(copied instanceof Object && 'write' in copied)
    }
    socket.destroy()
    server.close()
    await once(server, 'close')
  },
)
