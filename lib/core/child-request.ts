/** Which Child SA a connection needs, and whether one that is up will do. */
import { equal } from '../base/bytes.ts'
import { randomBytes, type Environment, type Millis } from '../base/environment.ts'
import type { Path } from '../base/path.ts'
import type { ChildRequest, PeerFacts } from '../ike/exchange.ts'
import type { PeerPolicy } from '../policy/options.ts'
import {
  covers,
  EVERYTHING,
  formatSelector,
  hostSelector,
  singlePort,
} from '../policy/traffic-selectors.ts'
import type { Flow, TcpStack } from '../tcp/stack.ts'
import { IpProtocol } from '../wire/registry.ts'
import type { Child } from './child-table.ts'
import type { Attempt } from './events.ts'

const IP_TCP = IpProtocol.Tcp

/** A connection that waits for its SA. */
export interface Pending extends Attempt {
  /** Ticket of the CREATE_CHILD_SA that will carry it; 0: none is under way. */
  ticket: number
  localPort: number
  /** The peer was asked for more than it gives: next for this one pair of ports and addresses (§2.9). */
  isExact: boolean
  /** An SA has ended under it before. */
  readonly isSecond: boolean
}

/** What a request depends on. */
export interface Situation {
  readonly policy: PeerPolicy
  readonly path: Path
  readonly facts: PeerFacts | undefined
  readonly environment: Environment
}

/** What to negotiate so that an attempt can go through. */
export const childRequest = (
  pending: Pending,
  isOurs: boolean,
  situation: Situation,
): ChildRequest => {
  const { remoteAddress, remotePort } = pending.request
  const { policy, path, environment } = situation
  const local = pending.request.localAddress ?? path.localAddress
  // Transport mode has no addresses of its own: another than that of the host needs a tunnel.
  const isOther = !equal(local, path.localAddress)
  if (pending.isExact) return exactRequest(pending, situation)
  if (policy.virtualAddress) return wholeRequest(policy)
  const behindGateway = !equal(remoteAddress, path.remoteAddress)
  const explicit = policy.localTs !== undefined || policy.remoteTs !== undefined
  if (policy.mode === 'tunnel' || behindGateway || isOther || explicit) {
    return {
      mode: policy.mode === 'auto' ? 'tunnel' : policy.mode,
      localSelectors: policy.localTs ?? [hostSelector(local)],
      remoteSelectors: policy.remoteTs ?? [hostSelector(remoteAddress)],
    }
  }
  if (isOurs) return hostRequest(policy, local, remoteAddress)
  // Other makes look SAs up by selectors, so host-wide ones of two clients behind one address would
  // collide there: one TCP port pair for each Child SA.
  pending.localPort ||= ephemeralPort(environment)
  return {
    mode: policy.mode,
    localSelectors: [hostSelector(local, IP_TCP, pending.localPort)],
    remoteSelectors: [hostSelector(remoteAddress, IP_TCP, remotePort)],
  }
}

/** All TCP between two hosts. */
export const hostRequest = (
  { mode }: PeerPolicy,
  local: Uint8Array,
  remote: Uint8Array,
): ChildRequest => ({
  mode,
  localSelectors: [hostSelector(local, IP_TCP)],
  remoteSelectors: [hostSelector(remote, IP_TCP)],
})

const exactRequest = (
  pending: Pending,
  { policy, path, facts, environment }: Situation,
): ChildRequest => {
  const { remoteAddress, remotePort, localAddress } = pending.request
  const given = facts?.virtualAddresses.find(({ length }) => length === remoteAddress.length)
  const isHost = given === undefined && equal(remoteAddress, path.remoteAddress)
  const local = localAddress ?? given ?? path.localAddress
  pending.localPort ||= ephemeralPort(environment)
  return {
    mode: policy.mode === 'auto' && !isHost ? 'tunnel' : policy.mode,
    localSelectors: [hostSelector(local, IP_TCP, pending.localPort)],
    remoteSelectors: [hostSelector(remoteAddress, IP_TCP, remotePort)],
  }
}

/** The address that the peer gives decides. */
const wholeRequest = ({ localTs, remoteTs }: PeerPolicy): ChildRequest => ({
  mode: 'tunnel',
  localSelectors: localTs ?? EVERYTHING,
  remoteSelectors: remoteTs ?? EVERYTHING,
})

/** What the Child SAs that are in use were made for, each once: a new IKE SA needs the same. */
export const requestsOf = (children: readonly Child[], policy: PeerPolicy): ChildRequest[] => {
  const requests = new Map<string, ChildRequest>()
  for (const { sa } of children) {
    if (sa.state !== 'installed' && sa.state !== 'rekeying') continue
    const { mode } = sa
    const { localSelectors, remoteSelectors } = policy.virtualAddress ? wholeRequest(policy) : sa
    const key = [
      mode,
      ...localSelectors.map(formatSelector),
      ...remoteSelectors.map(formatSelector),
    ]
    requests.set(key.join(' '), { mode, localSelectors, remoteSelectors })
  }
  return [...requests.values()]
}

/** The 4-tuple an attempt gets over one of these Child SAs; undefined when none covers it. */
export const flowOver = (
  children: readonly Child[],
  pending: Pending,
  { policy, path, facts }: Situation,
  tcp: TcpStack,
  now: Millis,
): Flow | undefined => {
  const { remoteAddress, remotePort } = pending.request
  for (const child of children) {
    const own = [...(facts?.virtualAddresses ?? []), path.localAddress]
    // Where neither we nor the peer chose addresses, one that another socket asked for is that socket's.
    const mayBeOther = policy.localTs !== undefined || policy.virtualAddress
    const localAddress =
      pending.request.localAddress ??
      addressIn(child, remoteAddress, own, mayBeOther) ??
      path.localAddress
    const ofChild = singlePort(child.sa.localSelectors)
    const localPort = pending.localPort || ofChild || 0
    const flow = { localAddress, localPort, remoteAddress, remotePort }
    if (
      localAddress.length === remoteAddress.length &&
      covers(child.sa.remoteSelectors, remoteAddress, IP_TCP, remotePort) &&
      covers(child.sa.localSelectors, localAddress, IP_TCP, localPort) &&
      // A Child SA for one port serves one connection at a time; who did not ask for that port gets another.
      !(pending.localPort === 0 && ofChild !== undefined && tcp.isTaken(flow, now))
    ) {
      return flow
    }
  }
  return undefined
}

/** Which of our addresses a Child SA lets us use towards a host of that family. */
const addressIn = (
  child: Child,
  remote: Uint8Array,
  own: readonly Uint8Array[],
  mayBeOther: boolean,
): Uint8Array | undefined => {
  if (child.sa.mode === 'transport') return child.localHost
  const usable = own.find(
    address =>
      address.length === remote.length && covers(child.sa.localSelectors, address, IP_TCP, 0),
  )
  if (usable !== undefined) return usable
  if (!mayBeOther) return undefined
  const selector = child.sa.localSelectors.find(({ start }) => start.length === remote.length)
  if (selector === undefined) return child.localHost
  // The first address of a subnet names the subnet itself; a single host is its own first.
  const address = selector.start.slice()
  if (!equal(selector.start, selector.end)) address[address.length - 1]! |= 1
  return address
}

/** RFC 6056 §3.3.1: a port nobody can guess, from the dynamic range. */
const ephemeralPort = (environment: Environment): number => {
  const bytes = randomBytes(environment, 2)
  return 0xc000 | (((bytes[0]! << 8) | bytes[1]!) & 0x3fff)
}
