/** Which Child SA a connection needs, and whether one that is up will do. */
import { equal } from '../base/bytes.ts'
import type { Environment } from '../base/environment.ts'
import type { IpsecError } from '../base/errors.ts'
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
import type { Flow } from '../tcp/stack.ts'
import { IpProtocol } from '../wire/registry.ts'
import type { Child } from './child-table.ts'
import type { Attempt } from './events.ts'

/**
 * What a Child SA is asked for: what options and the peer's make suggest; one pair of addresses and ports, since the peer
 * gives no more (RFC 7296 §2.9); or, since it does not give a pair, all traffic of the two hosts, at last in tunnel mode.
 */
export type Shape = 'usual' | 'pair' | 'hosts' | 'tunnel'

/** A connection that waits for its SA. */
export interface Pending extends Attempt {
  /** Ticket of the CREATE_CHILD_SA that will carry it; 0: none is under way. */
  ticket: number
  localPort: number
  shape: Shape
  /** The newest Child SA when all that are in use were found not to cover it; only newer ones are looked at then. */
  seen: Child | undefined
  /** What the peer gave did not cover it: this says more than a refusal of the next shape. */
  narrowed?: IpsecError
  token: Uint8Array | undefined
  /** An SA has ended under it before. */
  readonly isSecond: boolean
}

/** What a session knows of what a request depends on. */
export interface RequestContext {
  readonly policy: PeerPolicy
  readonly path: Path
  readonly facts: PeerFacts | undefined
  readonly environment: Environment
}

/** For a connection between these ends a local port that nothing uses or waits for; undefined: there is none. */
export type FreePort = (ends: Omit<Flow, 'localPort'>) => number | undefined

const protocolOf = ({ request }: Pending): number => request.protocol ?? IpProtocol.Tcp

/** What to negotiate so that an attempt can go through. */
export const childRequest = (
  pending: Pending,
  isOurs: boolean,
  requestContext: RequestContext,
  freePort: FreePort,
): ChildRequest => {
  const { remoteAddress } = pending.request
  const { policy } = requestContext
  const local = localOf(pending, requestContext)
  if (pending.shape === 'pair') return exactRequest(pending, requestContext, freePort)
  if (pending.shape === 'tunnel' || pending.shape === 'hosts') {
    return {
      mode: pending.shape === 'tunnel' ? 'tunnel' : policy.mode,
      localSelectors: [hostSelector(local)],
      remoteSelectors: [hostSelector(remoteAddress)],
    }
  }
  if (policy.virtualAddress) return wholeRequest(policy)
  if (!isBetweenHosts(pending, requestContext)) {
    return {
      mode: policy.mode === 'auto' ? 'tunnel' : policy.mode,
      localSelectors: policy.localTs ?? [hostSelector(local)],
      remoteSelectors: policy.remoteTs ?? [hostSelector(remoteAddress)],
    }
  }
  if (isOurs) return hostRequest(policy, local, remoteAddress, protocolOf(pending))
  // Other makes look SAs up by selectors, so host-wide ones of two clients behind one address would
  // collide there: one TCP port pair for each Child SA.
  return exactRequest(pending, requestContext, freePort)
}

const localOf = ({ request }: Pending, { path }: RequestContext): Uint8Array =>
  request.localAddress ?? path.localAddress

/** Nothing but the two hosts is spoken of, so that transport mode may do. */
const isBetweenHosts = (pending: Pending, requestContext: RequestContext): boolean => {
  const { policy, path } = requestContext
  return (
    policy.mode !== 'tunnel' &&
    policy.localTs === undefined &&
    policy.remoteTs === undefined &&
    equal(pending.request.remoteAddress, path.remoteAddress) &&
    // Transport mode has no addresses of its own: another than that of the host needs a tunnel.
    equal(localOf(pending, requestContext), path.localAddress)
  )
}

/**
 * How to ask once more after a refusal; undefined: there is no other way. Some peers take selectors of whole hosts only,
 * and some no transport mode, and say no more than that they do not like it.
 */
export const nextShape = (
  pending: Pending,
  code: string,
  requestContext: RequestContext,
): Shape | undefined => {
  const { shape } = pending
  // RFC 7296 §2.9: "expected to respond by requesting an SA for only the specific traffic".
  if (code === 'SINGLE_PAIR_REQUIRED') return shape === 'pair' ? undefined : 'pair'
  const { policy, facts } = requestContext
  if (facts?.isOurs === true || policy.virtualAddress || !isBetweenHosts(pending, requestContext))
    return undefined
  const mayTunnel = policy.mode === 'auto' && shape !== 'tunnel'
  if (code === 'TS_UNACCEPTABLE') {
    if (shape === 'usual') return 'hosts'
    return mayTunnel && shape === 'hosts' ? 'tunnel' : undefined
  }
  return code === 'NO_PROPOSAL_CHOSEN' && mayTunnel && shape !== 'pair' ? 'tunnel' : undefined
}

/** All of a protocol between two hosts. */
export const hostRequest = (
  { mode }: PeerPolicy,
  local: Uint8Array,
  remote: Uint8Array,
  protocol: number = IpProtocol.Tcp,
): ChildRequest => ({
  mode,
  localSelectors: [hostSelector(local, protocol)],
  remoteSelectors: [hostSelector(remote, protocol)],
})

/** One pair of addresses and ports; where no local port is free, all ports of that address. */
const exactRequest = (
  pending: Pending,
  { policy, path, facts }: RequestContext,
  freePort: FreePort,
): ChildRequest => {
  const { remoteAddress, remotePort, localAddress: wanted } = pending.request
  const protocol = protocolOf(pending)
  const given = facts?.virtualAddresses.find(({ length }) => length === remoteAddress.length)
  const isHost = given === undefined && equal(remoteAddress, path.remoteAddress)
  const localAddress = wanted ?? given ?? path.localAddress
  pending.localPort ||= freePort({ localAddress, remoteAddress, remotePort }) ?? 0
  return {
    mode: policy.mode === 'auto' && !isHost ? 'tunnel' : policy.mode,
    localSelectors: [hostSelector(localAddress, protocol, pending.localPort || undefined)],
    remoteSelectors: [hostSelector(remoteAddress, protocol, remotePort)],
  }
}

/** The address that the peer gives decides. */
const wholeRequest = ({ localTs, remoteTs }: PeerPolicy): ChildRequest => ({
  mode: 'tunnel',
  localSelectors: localTs ?? EVERYTHING,
  remoteSelectors: remoteTs ?? EVERYTHING,
})

/** The same for equal requests. */
export const textOf = ({ mode, localSelectors, remoteSelectors }: ChildRequest): string =>
  [mode, ...localSelectors.map(formatSelector), '-', ...remoteSelectors.map(formatSelector)].join(
    ' ',
  )

/** What the Child SAs that are in use were made for, each once: a new IKE SA needs the same. */
export const requestsOf = (children: readonly Child[], policy: PeerPolicy): ChildRequest[] => {
  const requests = new Map<string, ChildRequest>()
  for (const { sa } of children) {
    if (sa.state !== 'installed' && sa.state !== 'rekeying') continue
    const { mode } = sa
    const { localSelectors, remoteSelectors } = policy.virtualAddress ? wholeRequest(policy) : sa
    const request = { mode, localSelectors, remoteSelectors }
    requests.set(textOf(request), request)
  }
  return [...requests.values()]
}

/** The 4-tuple an attempt gets over one of these Child SAs; undefined when none covers it. */
export const flowOver = (
  children: readonly Child[],
  pending: Pending,
  { policy, path, facts }: RequestContext,
  isTaken: (flow: Flow) => boolean,
): Flow | undefined => {
  const { remoteAddress, remotePort } = pending.request
  const protocol = protocolOf(pending)
  for (const child of children) {
    if (child === pending.seen) break
    const own = [...(facts?.virtualAddresses ?? []), path.localAddress]
    // Where neither we nor the peer chose addresses, one that another socket asked for is that socket's.
    const mayBeOther = policy.localTs !== undefined || policy.virtualAddress
    const localAddress =
      pending.request.localAddress ??
      addressIn(child, protocol, remoteAddress, own, mayBeOther) ??
      path.localAddress
    const ofChild = singlePort(child.sa.localSelectors)
    const localPort = pending.localPort || ofChild || 0
    const flow = { localAddress, localPort, remoteAddress, remotePort }
    if (
      localAddress.length === remoteAddress.length &&
      covers(child.sa.remoteSelectors, remoteAddress, protocol, remotePort) &&
      covers(child.sa.localSelectors, localAddress, protocol, localPort) &&
      // A Child SA for one port serves one connection at a time; who did not ask for that port gets another.
      !(pending.localPort === 0 && ofChild !== undefined && isTaken(flow))
    ) {
      return flow
    }
  }
  pending.seen = children[0]
  return undefined
}

/** Which of our addresses a Child SA lets us use towards a host of that family. */
const addressIn = (
  child: Child,
  protocol: number,
  remote: Uint8Array,
  own: readonly Uint8Array[],
  mayBeOther: boolean,
): Uint8Array | undefined => {
  if (child.sa.mode === 'transport') return child.localHost
  const usable = own.find(
    address =>
      address.length === remote.length && covers(child.sa.localSelectors, address, protocol, 0),
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
