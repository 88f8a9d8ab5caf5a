/** The way a datagram takes: which of our UDP sockets, and the two ends as seen from here. */
import { equal } from './bytes.ts'
import { formatAddress } from './address.ts'

export interface Path {
  /** Which of the endpoint's UDP sockets. */
  readonly socket: number
  /** 4 or 16 octets; none when the socket is bound to all addresses and the system does not tell. */
  readonly localAddress: Uint8Array
  readonly localPort: number
  readonly remoteAddress: Uint8Array
  readonly remotePort: number
  /** Port 500, where IKE stands alone and has no non-ESP marker (RFC 3948 §2.2). */
  readonly isUnmarked?: boolean | undefined
  /** Octets of the largest IP packet that the interface takes; undefined: not known. */
  readonly interfaceMtu?: number | undefined
  /** Of an initiator's unmarked path: where everything after IKE_SA_INIT goes (RFC 7296 §2.23). */
  readonly floatsTo?: Path | undefined
}

export const samePath = (a: Path, b: Path): boolean =>
  a === b ||
  (a.socket === b.socket &&
    a.remotePort === b.remotePort &&
    equal(a.remoteAddress, b.remoteAddress))

export const formatEndpoint = (address: Uint8Array, port: number): string =>
  address.length === 16
    ? `[${formatAddress(address)}]:${port}`
    : `${formatAddress(address)}:${port}`
