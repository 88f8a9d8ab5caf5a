/**
 * The connections that a session is opening: each waits first for a Child SA that covers it, then for TCP.
 * An attempt under which an SA ends is not to blame for that, so it begins once more with a new SA.
 */
import { errorOf, INSIDE, noteOf } from '../base/error-table.ts'
import { formatAddress } from '../base/address.ts'
import { getU32 } from '../base/bytes.ts'
import { randomBytes, type Millis } from '../base/environment.ts'
import { socketError, type IpsecError } from '../base/errors.ts'
import { formatEndpoint } from '../base/path.ts'
import type { ChildRequest, PeerFacts } from '../ike/exchange.ts'
import { formatSelector, singlePort } from '../policy/traffic-selectors.ts'
import type { TcpConnection } from '../tcp/connection.ts'
import { tokenFor } from '../tcp/first-octets.ts'
import { EphemeralPorts } from '../tcp/ports.ts'
import type { FirstWrite, Flow, TcpStack } from '../tcp/stack.ts'
import { IpProtocol } from '../wire/registry.ts'
import { TOKEN_LENGTH } from '../wire/tcp.ts'
import type { ChildSa } from '../ike/child-sa.ts'
import {
  childRequest,
  flowOver,
  nextShape,
  textOf,
  type Pending,
  type Shape,
  type RequestContext,
} from './child-request.ts'
import type { Child } from './child-table.ts'
import type { Attempt, CoreEvent, SessionHandle } from './events.ts'

/**
 * Which attempts leave an SA although their SYN was sent. The peer may have got what went with it, and takes no more of it
 * by another SA: such an attempt leaves only what is known to be dead.
 */
export type Begun = 'all' | 'without data' | 'with data' | 'none'

const isAmong = (begun: Begun, hasData: boolean): boolean =>
  begun === 'all' || begun === (hasData ? 'with data' : 'without data')

/** What an attempt needs of its session. */
export interface AttemptHost extends SessionHandle {
  readonly facts: PeerFacts | undefined
  readonly stack: TcpStack | undefined
  readonly requestContext: RequestContext
  readonly childrenInUse: readonly Child[]
  /** Child SAs can be negotiated, and nothing says that the peer is gone. */
  readonly isOpenForAttempts: boolean
  /** Returns the ticket under which IKE will speak of it. */
  createChild(request: ChildRequest, now: Millis): number
  /** The attempt begins again with a new SA. */
  reopen(attempt: Attempt, now: Millis): void
  emit(event: CoreEvent): void
}

export class Attempts {
  private readonly host: AttemptHost
  /** Those that wait for a Child SA, by their context: a burst of thousands is not searched for each of them. */
  private readonly waiting = new Map<unknown, Pending>()
  /** The number of them that have a local port of their own, by port. */
  private readonly reserved = new Map<number, number>()
  /** Connections whose SYN is under way, and the same by their context. */
  private readonly opening = new Map<TcpConnection, Pending>()
  private readonly connections = new Map<unknown, TcpConnection>()
  /** IKE_AUTH carries a Child SA, and what became of it is not known yet. */
  private awaitsFirstChild = false
  /** The attempt for which that Child SA is made. */
  private first: Pending | undefined
  /** What the peer has given after it had refused what is usual. */
  private shape: Shape = 'usual'
  /** Tickets of Child SAs that are asked for, by what is asked: several attempts may need the same. */
  private readonly asked = new Map<string, number>()

  constructor(host: AttemptHost) {
    this.host = host
  }

  /** None waits for a Child SA. */
  get noneWaits(): boolean {
    return this.waiting.size === 0
  }

  add(attempt: Attempt, isSecond: boolean): void {
    const { request, context, token } = attempt
    const { localPort } = request
    const { shape } = this
    const seen = undefined
    const pending = { request, context, token, ticket: 0, localPort, shape, seen, isSecond }
    this.waiting.set(context, pending)
    this.reserve(localPort)
  }

  /** It waits no more; false: it did not. */
  private take(context: unknown): boolean {
    const pending = this.waiting.get(context)
    if (pending === undefined) return false
    this.free(pending.localPort)
    return this.waiting.delete(context)
  }

  private reserve(port: number): void {
    if (port !== 0) this.reserved.set(port, (this.reserved.get(port) ?? 0) + 1)
  }

  private free(port: number): void {
    const count = this.reserved.get(port) ?? 0
    if (count > 1) this.reserved.set(port, count - 1)
    else this.reserved.delete(port)
  }

  /** Gives up an attempt, or the connection it became; nothing is reported. True: it had only waited. */
  cancel(attempt: Attempt): boolean {
    const connection = this.connections.get(attempt.context)
    if (connection !== undefined) {
      this.takeOpened(connection)
      connection.abort()
    }
    return this.take(attempt.context)
  }

  /** The Child SA that IKE_AUTH is to make; undefined when nothing waits for one. */
  takeFirst(isChildless: boolean): ((isOurs: boolean) => ChildRequest) | undefined {
    const [first] = this.waiting.values()
    this.first = first
    this.awaitsFirstChild = first !== undefined && !isChildless
    return first && (isOurs => this.requestFor(first, isOurs))
  }

  private requestFor(pending: Pending, isOurs: boolean): ChildRequest {
    const draw = (ends: Omit<Flow, 'localPort'>): number | undefined => {
      const port = this.freePort(ends)
      // The request for the first Child SA is made late, when the attempt may have been given up.
      if (this.waiting.has(pending.context)) this.reserve(port ?? 0)
      return port
    }
    return childRequest(pending, isOurs, this.host.requestContext, draw)
  }

  /** Of the ports that no connection has, one for which there is no Child SA either, nor a request for one. */
  private freePort(ends: Omit<Flow, 'localPort'>): number | undefined {
    const { stack, childrenInUse, requestContext } = this.host
    const ofChildren = new Set(childrenInUse.map(({ sa }) => singlePort(sa.localSelectors) ?? 0))
    const ports = stack?.portsTowards(ends) ?? new EphemeralPorts()
    const random = getU32(randomBytes(requestContext.environment, 4), 0)
    return ports.find(random, port => this.reserved.has(port) || ofChildren.has(port))
  }

  /** Opens what can be opened: attempts that an installed SA covers go on to TCP, others ask for one. */
  advance(now: Millis): void {
    const { host } = this
    if (this.waiting.size === 0 || !host.isOpenForAttempts || host.stack === undefined) return
    for (const pending of [...this.waiting.values()]) {
      const flow = this.flowOf(pending, host.stack, now)
      if (flow !== undefined) this.open(pending, flow, host.stack, now)
      else if (pending.ticket === 0 && !this.awaitsFirstChild) this.askFor(pending, now)
    }
  }

  private askFor(pending: Pending, now: Millis): void {
    const request = this.requestFor(pending, this.host.facts?.isOurs === true)
    const text = textOf(request)
    const ticket = this.asked.get(text) ?? this.host.createChild(request, now)
    this.asked.set(text, ticket)
    pending.ticket = ticket
  }

  private open(pending: Pending, flow: Flow, stack: TcpStack, now: Millis): void {
    const { host } = this
    this.take(pending.context)
    host.emit({ kind: 'session', attempt: pending, session: host })
    if (pending.request.protocol === IpProtocol.Udp) {
      const ends = { ...flow, protocol: IpProtocol.Udp }
      return host.emit({ kind: 'associated', attempt: pending, flow: ends, session: host })
    }
    const first = this.firstWriteOf(pending, stack)
    const connection = stack.connect(flow, { ...pending.request, first }, now)
    if (connection === undefined) {
      const error = faultOf('EADDRINUSE', 'connect', flow)
      return host.emit({ kind: 'failed', attempt: pending, error })
    }
    this.opening.set(connection, pending)
    this.connections.set(pending.context, connection)
  }

  /** What goes with the SYN; the token stays with the attempt. */
  private firstWriteOf(pending: Pending, stack: TcpStack): FirstWrite | undefined {
    if (!stack.peerFeatures.has('data-on-syn')) return undefined
    const octets = pending.request.firstOctets?.()
    if (octets === undefined) return undefined
    const before = pending.token
    pending.token ??= randomBytes(this.host.requestContext.environment, TOKEN_LENGTH)
    return { octets, token: tokenFor(pending.token, before !== undefined) }
  }

  /** The 4-tuple an attempt gets over an SA that is up; undefined when none covers it. */
  private flowOf(pending: Pending, stack: TcpStack, now: Millis): Flow | undefined {
    // The Child SA for one port is for the attempt that asked for it.
    const isTaken = (flow: Flow): boolean =>
      this.reserved.has(flow.localPort) || stack.isTaken(flow, now)
    return flowOver(this.host.childrenInUse, pending, this.host.requestContext, isTaken)
  }

  /** TCP has connected, or failed: the attempt that it was, if it was one. */
  takeOpened(connection: TcpConnection): Pending | undefined {
    const pending = this.opening.get(connection)
    this.opening.delete(connection)
    if (pending !== undefined) this.connections.delete(pending.context)
    return pending
  }

  // --- what became of Child SAs, by ticket; undefined is that of IKE_AUTH ---

  noteChildInstalled(
    ticket: number | undefined,
    isRenewal: boolean,
    sa: ChildSa,
    now: Millis,
  ): void {
    if (ticket === undefined && !isRenewal) this.awaitsFirstChild = false
    const { stack } = this.host
    for (const pending of this.takeTicket(ticket)) {
      if (stack === undefined || this.flowOf(pending, stack, now) !== undefined) {
        if (pending.shape !== 'pair') this.shape = pending.shape
        continue
      }
      const localSelectors = sa.localSelectors.map(formatSelector)
      const remoteSelectors = sa.remoteSelectors.map(formatSelector)
      const given = [...localSelectors, ...remoteSelectors]
      const { remoteAddress, remotePort } = pending.request
      const wanted = formatEndpoint(remoteAddress, remotePort)
      const details = { given, localSelectors, remoteSelectors }
      pending.narrowed = errorOf('NARROWED', { given: given.join(' '), wanted }, details)
      if (pending.shape === 'pair') this.fail(pending, pending.narrowed)
      else this.askAs(pending, 'pair')
    }
    this.advance(now)
  }

  /** False: no attempt waited for it. */
  noteChildFailed(ticket: number | undefined, error: IpsecError, now: Millis): boolean {
    if (ticket === undefined) this.awaitsFirstChild = false
    const { stack, requestContext } = this.host
    const waited = this.takeTicket(ticket)
    for (const pending of waited) {
      // Another attempt may have found a way meanwhile.
      if (stack !== undefined && this.flowOf(pending, stack, now) !== undefined) continue
      const shape = nextShape(pending, error.code, requestContext)
      if (shape !== undefined) this.askAs(pending, shape)
      else if (error.code === 'TS_UNACCEPTABLE') this.fail(pending, pending.narrowed ?? error)
      else this.fail(pending, error)
    }
    this.advance(now)
    return waited.length > 0
  }

  /** The IKE SA that was to make it ended: another is asked. */
  noteChildAbandoned(ticket: number, now: Millis): void {
    this.takeTicket(ticket)
    this.advance(now)
  }

  /** The attempts that waited for a Child SA, if any still do. */
  private takeTicket(ticket: number | undefined): Pending[] {
    const isFirst = ticket === undefined
    const waited = [...this.waiting.values()].filter(other =>
      isFirst ? other === this.first : other.ticket === ticket,
    )
    if (isFirst) this.first = undefined
    for (const [text, other] of this.asked) {
      if (other === ticket) this.asked.delete(text)
    }
    for (const pending of waited) {
      pending.ticket = 0
      pending.seen = undefined
    }
    return waited
  }

  // --- ends ---

  /**
   * An SA that was up has ended, or seems to have, under attempts that are not to blame: each begins once
   * more with a new one. Of those whose SYN was sent, `begun` chooses.
   */
  reopen(begunOnes: Begun, now: Millis): void {
    const begun = [...this.opening].filter(
      ([, { isSecond, token }]) => !isSecond && isAmong(begunOnes, token !== undefined),
    )
    for (const [connection] of begun) {
      this.takeOpened(connection)
      connection.abort()
    }
    const waiting = [...this.waiting.values()].filter(({ isSecond }) => !isSecond)
    for (const { context } of waiting) this.take(context)
    for (const { request, context, token } of [
      ...begun.map(([, pending]) => pending),
      ...waiting,
    ]) {
      this.host.reopen({ request, context, token }, now)
    }
  }

  /** That is what the attempt needs next; a port that was only drawn for what was refused is free again. */
  private askAs(pending: Pending, shape: Shape): void {
    pending.shape = shape
    this.free(pending.localPort)
    pending.localPort = pending.request.localPort
    this.reserve(pending.localPort)
  }

  /** Every attempt that still waits for a Child SA fails. */
  failAll(error: Error): void {
    for (const pending of [...this.waiting.values()]) this.fail(pending, error)
  }

  private fail(pending: Pending, error: Error): void {
    this.take(pending.context)
    this.host.emit({ kind: 'failed', attempt: pending, error })
  }
}

/** `net` names the remote end in errors of connecting, and no end in those of an open connection. */
export const faultOf = (code: string, syscall: string | undefined, flow: Flow): Error =>
  socketError({
    code,
    syscall,
    ...(syscall === 'connect'
      ? {
          address: formatAddress(flow.remoteAddress),
          port: flow.remotePort,
          note: noteOf(INSIDE, code),
        }
      : {}),
  })
