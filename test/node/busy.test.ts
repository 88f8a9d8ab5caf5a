/** What an end does that was busy with something else while datagrams came. */
import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import t from 'tap'
import { createSecureSocket } from '../../lib/index.ts'
import { freePort } from '../harness/free-port.ts'
import type { PortWorkerData } from '../harness/port-worker.ts'

const psk = 'a pre-shared key for these tests'
const host = '127.0.0.1'
const port = 8080

t.test('what has come is read before anything is given up and sent again', async t => {
  const ikePort = await freePort()
  const answered = new Int32Array(new SharedArrayBuffer(4))
  const workerData: PortWorkerData = { name: 'x', port, options: { psk, ikePort }, answered }
  const thread = new Worker(new URL('../harness/port-worker.js', import.meta.url), { workerData })
  t.strictSame(await once(thread, 'message'), ['listening'])
  const socket = createSecureSocket({ host, port, ikePort, psk })
  await once(socket, 'data')
  const repeated = (): unknown => socket.tcpInfo()?.['total_retrans']
  // A slow machine may have repeated something until here.
  const before = repeated()
  for (let times = 0; times < 3; times++) {
    socket.write('x')
    // It goes out at the end of this tick; the answer is there long before we are.
    await new Promise<void>(resolve => process.nextTick(resolve))
    t.not(Atomics.wait(answered, 0, times, 20_000), 'timed-out')
    Atomics.wait(answered, 0, times + 1, 500)
    t.strictSame(await once(socket, 'data'), [Buffer.from('x')])
  }
  t.equal(repeated(), before)
  socket.destroy()
  await thread.terminate()
})
