/** A stranger that asks for IKE SAs and never goes on, so that the responder has half-open ones. */
import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'

const uint16 = (value: number): Buffer => Buffer.from([value >> 8, value & 255])

const payload = (next: number, body: Buffer): Buffer =>
  Buffer.concat([Buffer.from([next, 0]), uint16(body.length + 4), body])

const transform = (more: number, type: number, id: number, attributes = Buffer.alloc(0)): Buffer =>
  Buffer.concat([
    Buffer.from([more, 0]),
    uint16(8 + attributes.length),
    Buffer.from([type, 0]),
    uint16(id),
    attributes,
  ])

/** IKE_SA_INIT (RFC 7296 §1.2) with one proposal: AES-GCM-256, PRF_HMAC_SHA2_256, X25519. */
const initRequest = (): Buffer => {
  const transforms = Buffer.concat([
    transform(3, 1, 20, Buffer.from([0x80, 14, 1, 0])),
    transform(3, 2, 5),
    transform(0, 4, 31),
  ])
  const proposal = Buffer.concat([
    Buffer.from([0, 0]),
    uint16(8 + transforms.length),
    Buffer.from([1, 1, 0, 3]),
    transforms,
  ])
  const { publicKey } = generateKeyPairSync('x25519')
  const point = publicKey.export({ format: 'der', type: 'spki' }).subarray(-32)
  const body = Buffer.concat([
    payload(34, proposal),
    payload(40, Buffer.concat([uint16(31), uint16(0), point])),
    payload(0, randomBytes(32)),
  ])
  const header = Buffer.alloc(28)
  randomBytes(8).copy(header)
  header.set([33, 0x20, 34, 0x08], 16)
  header.writeUInt32BE(header.length + body.length, 24)
  return Buffer.concat([Buffer.alloc(4), header, body])
}

/** Resolves when each has been answered. */
export const openHalf = async (host: string, port: number, count: number): Promise<void> => {
  const socket = createSocket('udp4')
  for (let i = 0; i < count; i++) {
    const answered = once(socket, 'message', { signal: AbortSignal.timeout(3000) })
    socket.send(initRequest(), port, host)
    await answered
  }
  socket.close()
}
