/** NAT_DETECTION notifications (RFC 7296 §2.23). */
import { equal } from '../base/bytes.ts'
import { randomBytes, type Environment } from '../base/environment.ts'
import type { Path } from '../base/path.ts'
import { computeHash, type Backend } from '../crypto/prf.ts'
import { notify, notifyData } from '../wire/notify.ts'
import type { NotifyPayload, Payload } from '../wire/payloads.ts'
import { HashAlgorithm, NotifyType } from '../wire/registry.ts'

export interface NatVerdict {
  readonly localBehindNat: boolean
  readonly remoteBehindNat: boolean
  /** The peer's hash of the address and port that it sees us under: when it changes, those have (RFC 4555 §3.8). */
  readonly seenAs?: Uint8Array | undefined
  /** This is the address of ours that the peer sent to, as far as its hashes say. */
  cameTo(address: Uint8Array): boolean
}

const HASH_LENGTH = 20

const detectionHash = (
  backend: Backend,
  spiI: Uint8Array,
  spiR: Uint8Array,
  address: Uint8Array,
  port: number,
): Uint8Array =>
  computeHash(backend, HashAlgorithm.Sha1, spiI, spiR, address, Uint8Array.of(port >>> 8, port))

/**
 * We have UDP alone and no raw ESP, so the peer must encapsulate whether there is a NAT or not: a source
 * hash that matches nothing makes it (RFC 7296 §2.23 allows a host to force encapsulation so).
 */
export const natDetectionPayloads = (
  environment: Environment,
  backend: Backend,
  spiI: Uint8Array,
  spiR: Uint8Array,
  path: Path,
): NotifyPayload[] => [
  notify(NotifyType.NatDetectionSourceIp, randomBytes(environment, HASH_LENGTH)),
  notify(
    NotifyType.NatDetectionDestinationIp,
    detectionHash(backend, spiI, spiR, path.remoteAddress, path.remotePort),
  ),
]

/**
 * What the peer's hashes say. Our own address may be unknown, and then we cannot tell about ourselves. The verdict lives
 * as long as its SA: it keeps the hashes alone, and not the message that they came in.
 */
export const natVerdict = (
  backend: Backend,
  payloads: readonly Payload[],
  spiI: Uint8Array,
  spiR: Uint8Array,
  { localAddress, localPort, remoteAddress, remotePort }: Path,
): NatVerdict => {
  const sources = notifyData(payloads, NotifyType.NatDetectionSourceIp)
  const destinations = notifyData(payloads, NotifyType.NatDetectionDestinationIp)
  const matches = (
    hashes: readonly Uint8Array[],
    address: Uint8Array,
    port: number,
  ): boolean | undefined => {
    if (hashes.length === 0 || address.length === 0) return undefined
    const own = detectionHash(backend, spiI, spiR, address, port)
    return hashes.some(hash => equal(hash, own))
  }
  return {
    localBehindNat: matches(destinations, localAddress, localPort) === false,
    remoteBehindNat: matches(sources, remoteAddress, remotePort) === false,
    seenAs: destinations[0],
    cameTo: address => matches(destinations, address, localPort) === true,
  }
}
