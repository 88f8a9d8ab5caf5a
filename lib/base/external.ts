/**
 * Memory outside V8's heap, which node:crypto and node:dgram hand out with each call, is given back as soon as it has
 * been read: V8 sees only the small objects in front of it, so it collects too late, and then too often.
 */
import { MessageChannel, type MessagePort } from 'node:worker_threads'

/** Before Node 22 only a message moves a buffer, and one to nobody frees it. */
let nobody: MessagePort | undefined

const portToNobody = (): MessagePort => {
  const { port1, port2 } = new MessageChannel()
  port2.close()
  port1.close()
  return port1
}

/** Ours: a copy of less costs little, and many small memories cost the collector more than what they hold. */
const WORTH_KEEPING = 16_384
/** Ours: of what is kept so, most must be the octets that are wanted. */
const LEAST_PART = 3 / 4

/** The constructor of `Kept` gets to work on the object that is there already. */
class Same {
  constructor(memory: ArrayBufferLike) {
    return memory
  }
}

/**
 * Memory that somebody keeps in the place of a copy: it bears a mark that nobody else can see. A `WeakSet` of all of
 * them cost more than a microsecond for each, and time of every Mark-Compact.
 */
class Kept extends Same {
  readonly #isKept = true

  static has(memory: ArrayBufferLike): boolean {
    return #isKept in memory
  }

  static mark(memory: ArrayBufferLike): void {
    if (!Kept.has(memory)) new Kept(memory)
  }
}

/**
 * Code that would copy these octets out of a plaintext that nobody reads afterwards may keep them in place: true,
 * and `release` leaves their memory. False: it is not worth it.
 */
export const adopt = ({ buffer, length }: Uint8Array): boolean => {
  if (length < WORTH_KEEPING || length < LEAST_PART * buffer.byteLength) return false
  Kept.mark(buffer)
  return true
}

/** Somebody keeps a part of the memory of these octets. */
export const isAdopted = ({ buffer }: Uint8Array): boolean => Kept.has(buffer)

type Movable = ArrayBuffer & { transfer?(length: number): ArrayBuffer }

/** Ours: of smaller memory a collection costs less than this does. */
const WORTH = 1024
/** Ours: a message costs ten times what one memory in it does, so those with fewer octets than this in all wait for others. */
const WORTH_MESSAGE = 32_768
let waiting: ArrayBuffer[] = []
let waitingOctets = 0

const sendAway = (buffer: ArrayBuffer): void => {
  if (waiting.includes(buffer)) return
  waiting.push(buffer)
  waitingOctets += buffer.byteLength
  if (waitingOctets < WORTH_MESSAGE) return
  const all = waiting
  waiting = []
  waitingOctets = 0
  ;(nobody ??= portToNobody()).postMessage(null, all)
}

/**
 * Frees, now or with others, the memory of octets that nobody will read again, if they are the whole of it and nobody
 * keeps it. Whoever was given octets by node:crypto or node:dgram is their only owner.
 */
export const release = ({ buffer, length }: Uint8Array): void => {
  if (length < WORTH || length !== buffer.byteLength || !(buffer instanceof ArrayBuffer)) return
  if (Kept.has(buffer)) return
  const movable: Movable = buffer
  if (movable.transfer !== undefined) movable.transfer(0)
  else sendAway(movable)
}
