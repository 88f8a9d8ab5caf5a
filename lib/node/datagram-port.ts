/** What the system gives of UDP, by whichever road: one descriptor that is bound, and perhaps connected. */
import { formatAddress } from '../base/address.ts'
import type { Path } from '../base/path.ts'

/** Holds some hundred large datagrams; the kernel's default holds three of 60,000 octets. */
export const BUFFER_OCTETS = 4 << 20

/** libuv reads so many datagrams of a socket before anything else has its turn: that many tell of more. */
export const TURN_DATAGRAMS = 32

export type Bound = (error?: NodeJS.ErrnoException) => void

export interface PortOptions {
  readonly family: 4 | 6
  readonly ipv6Only: boolean
  /** Others may bind the port too. */
  readonly reusePort: boolean
}

/** Whence a datagram came, as Node writes it. */
export interface Sender {
  readonly address: string
  readonly port: number
}

export interface PortEvents {
  /** `bytes`, not empty, are there during the call only. */
  onMessage(bytes: Uint8Array, sender: Sender): void
  /** The octets of a datagram are nobody's any more, and what it leads to may be done at once: what that throws, Node expects. */
  onTaken(): void
  /** What had come was handed over, in a turn that nothing else follows; where it is not told, libuv's own turn goes on. */
  onRead(): void
  /** Later than the call that caused it. `path`: of the datagram, if it is known. */
  onError(error: NodeJS.ErrnoException, path: Path | undefined): void
}

/** After `close` nothing may be called. */
export interface DatagramPort {
  bind(port: number, address: string | undefined, done: Bound): void
  /** Fixes the remote end: cheaper sends, and the system reports when nobody listens there. */
  connect(port: number, address: string, done: Bound): void
  address(): { address: string; port: number; family: 'IPv4' | 'IPv6' }
  /** Some earlier datagram has not gone yet. */
  readonly isCongested: boolean
  /** What the system has told to be there, and waits for its turn, is handed over now. */
  readAwaited(): void
  /** `heard`: datagrams of the turn that has just ended. It ended although there may be more. */
  mayHaveMore(heard: number): boolean
  /** It leaves at the next `flush` at the latest. `bytes` may be reused as soon as `isCongested` is false. */
  send(bytes: Uint8Array, path: Path): void
  flush(): void
  ref(): void
  unref(): void
  close(): void
}

/** The address that a socket of that family sends to. */
export const destinationText = (family: 4 | 6, { remoteAddress }: Path): string => {
  const text = formatAddress(remoteAddress)
  return family === 6 && remoteAddress.length === 4 ? `::ffff:${text}` : text
}
