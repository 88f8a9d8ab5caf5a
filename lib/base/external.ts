/**
 * Memory outside V8's heap, which node:crypto and node:dgram hand out with each call, is given back as soon as it has
 * been read: V8 sees only the small objects in front of it, so it collects too late, and then too often.
 */
import { MessageChannel, type MessagePort } from 'node:worker_threads'

/** Ours: of smaller memory a collection costs less than this does. */
const WORTH = 1024

/** Before Node 22 only a message moves a buffer, and one to nobody frees it. */
let nobody: MessagePort | undefined

const portToNobody = (): MessagePort => {
  const { port1, port2 } = new MessageChannel()
  port2.close()
  port1.close()
  return port1
}

type Movable = ArrayBuffer & { transfer?(length: number): ArrayBuffer }

/**
 * Frees the memory of octets that nobody will read again, if they are the whole of it. Whoever was given octets by
 * node:crypto or node:dgram is their only owner.
 */
export const release = ({ buffer, length }: Uint8Array): void => {
  if (length < WORTH || length !== buffer.byteLength || !(buffer instanceof ArrayBuffer)) return
  const movable: Movable = buffer
  if (movable.transfer !== undefined) movable.transfer(0)
  else (nobody ??= portToNobody()).postMessage(null, [movable])
}
