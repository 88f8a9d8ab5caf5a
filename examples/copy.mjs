// Copies a file from one end to the other, in two terminals:
//   node examples/copy.mjs receive /tmp/copy
//   node examples/copy.mjs send README.md
import { createReadStream, createWriteStream, statSync } from 'node:fs'
import { pipeline } from 'node:stream/promises'
import { createSecureServer, createSecureSocket } from 'ike-socket'
import { progress } from './progress.mjs'

const psk = process.env.IKE_PSK ?? 'an example key: take 16 random octets or more'
const ikePort = Number(process.env.IKE_PORT ?? 4500)
const [verb, file] = process.argv.slice(2)

if (verb === 'receive') {
  const server = createSecureServer({ psk, ikePort }, async socket => {
    await pipeline(socket, createWriteStream(file))
    console.log(`${socket.bytesRead} octets received`)
    server.close()
  })
  server.listen(8082, () => console.log('listening'))
} else {
  const socket = createSecureSocket({ host: '127.0.0.1', port: 8082, psk, ikePort })
  const bar = progress(file)
  const { size } = statSync(file)
  const source = createReadStream(file).on('data', () => bar.update(source.bytesRead / size))
  await pipeline(source, socket)
  bar.stop()
  console.log(`${socket.bytesWritten} octets sent`)
}
