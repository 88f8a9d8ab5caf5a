/**
 * A transfer whose both directions are checked by SHA-256: over a kernel TCP connection or one of ours, the
 * same code at all four ends.
 *
 * Client: up, down, rate (three uint32), then `up` octets. Server: `down` octets, then SHA-256 of what it
 * received and of what it sent, then FIN. `rate` paces both directions, in octets a second; 0: as fast as it goes.
 */
import { createHash, randomBytes, type Hash } from 'node:crypto'
import type { Duplex } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'

export interface Plan {
  readonly up: number
  readonly down: number
  readonly rate?: number
}

/** The transfer goes on when what this starts is done. */
export type Progress = (sent: number) => Promise<void> | void

const HEADER = 12
const DIGESTS = 64
const CHUNK = 16_384

/** Resolves when it takes more, or never will. */
const drained = (socket: Duplex): Promise<void> =>
  new Promise(resolve => {
    const done = (): void => {
      socket.off('drain', done).off('close', done)
      resolve()
    }
    socket.on('drain', done).on('close', done)
  })

const send = async (
  socket: Duplex,
  octets: number,
  rate: number,
  hash: Hash,
  onProgress?: Progress,
): Promise<void> => {
  const started = performance.now()
  for (let sent = 0; sent < octets && !socket.destroyed;) {
    const chunk = randomBytes(Math.min(CHUNK, octets - sent))
    hash.update(chunk)
    sent += chunk.length
    if (!socket.write(chunk)) await drained(socket)
    const ahead = rate === 0 ? 0 : (sent / rate) * 1000 - (performance.now() - started)
    if (ahead > 0) await sleep(ahead)
    await onProgress?.(sent)
  }
}

/** The client's end: resolves when both directions were right and the connection closed in order. */
export const transfer = (
  socket: Duplex,
  { up, down, rate = 0 }: Plan,
  onProgress?: Progress,
): Promise<void> =>
  new Promise((resolve, reject) => {
    const sentHash = createHash('sha256')
    const receivedHash = createHash('sha256')
    const digests: Buffer[] = []
    let received = 0
    let checked = false
    const check = (): void => {
      const said = Buffer.concat(digests)
      const expected = Buffer.concat([sentHash.digest(), receivedHash.digest()])
      if (received !== down + DIGESTS)
        throw new Error(`received ${received} of ${down + DIGESTS} octets`)
      if (!said.subarray(0, 32).equals(expected.subarray(0, 32)))
        throw new Error('upload: the hashes differ')
      if (!said.equals(expected)) throw new Error('download: the hashes differ')
      checked = true
    }
    socket.on('data', (chunk: Buffer) => {
      const body = chunk.subarray(0, Math.max(0, down - received))
      receivedHash.update(body)
      received += chunk.length
      if (body.length < chunk.length) digests.push(chunk.subarray(body.length))
    })
    socket.once('end', () => {
      try {
        check()
        socket.end()
      } catch (error) {
        socket.destroy(error as Error)
      }
    })
    socket.once('error', reject)
    socket.once('close', () => {
      if (checked) resolve()
      else reject(new Error(`closed after ${received} of ${down + DIGESTS} octets`))
    })
    const header = Buffer.alloc(HEADER)
    ;[up, down, rate].forEach((value, i) => header.writeUInt32BE(value, 4 * i))
    socket.write(header)
    send(socket, up, rate, sentHash, onProgress).catch(reject)
  })

/** The server's end. A connection that breaks is the client's to report. */
export const answer = (socket: Duplex): void => {
  const sentHash = createHash('sha256')
  const receivedHash = createHash('sha256')
  let header = Buffer.alloc(0)
  let left = -1
  let sending: Promise<void> = Promise.resolve()
  socket.on('error', () => {})
  socket.on('data', (chunk: Buffer) => {
    let body = chunk
    if (left < 0) {
      header = Buffer.concat([header, chunk])
      if (header.length < HEADER) return
      left = header.readUInt32BE(0)
      body = header.subarray(HEADER)
      sending = send(socket, header.readUInt32BE(4), header.readUInt32BE(8), sentHash)
    }
    if (body.length === 0 && left > 0) return
    receivedHash.update(body)
    left -= body.length
    if (left > 0) return
    void sending.then(() => {
      if (!socket.destroyed) socket.end(Buffer.concat([receivedHash.digest(), sentHash.digest()]))
    })
  })
}
