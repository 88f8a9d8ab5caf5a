/**
 * The connections that a session is opening: each waits first for a Child SA that covers it, then for TCP.
 * An attempt under which an SA ends is not to blame for that, so it begins once more with a new SA.
 */
import { formatAddress } from '../base/address.ts'
import type { Millis } from '../base/environment.ts'
import { PeerRefusedError, socketError, type IpsecError } from '../base/errors.ts'
import type { ChildRequest, PeerFacts } from '../ike/exchange.ts'
import { formatSelector } from '../policy/traffic-selectors.ts'
import type { TcpConnection } from '../tcp/connection.ts'
import type { Flow, TcpStack } from '../tcp/stack.ts'
import type { ChildSa } from '../ike/child-sa.ts'
import { childRequest, flowOver, type Pending, type Situation } from './child-request.ts'
import type { Child } from './child-table.ts'
import type { Attempt, CoreEvent, SessionHandle } from './events.ts'

/** What an attempt needs of its session. */
export interface AttemptHost extends SessionHandle {
  readonly facts: PeerFacts | undefined
  readonly stack: TcpStack | undefined
  readonly situation: Situation
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
  /** Those that wait for a Child SA. */
  private readonly waiting: Pending[] = []
  /** Connections whose SYN is under way. */
  private readonly opening = new Map<TcpConnection, Pending>()
  /** IKE_AUTH carries a Child SA, and what became of it is not known yet. */
  private awaitsFirstChild = false
  /** The attempt for which that Child SA is made. */
  private first: Pending | undefined

  constructor(host: AttemptHost) {
    this.host = host
  }

  /** None waits for a Child SA. */
  get noneWaits(): boolean {
    return this.waiting.length === 0
  }

  add(attempt: Attempt, isSecond: boolean): void {
    const { localPort } = attempt.request
    this.waiting.push({ ...attempt, ticket: 0, localPort, isExact: false, isSecond })
  }

  /** Gives up an attempt, or the connection it became; nothing is reported. True: it had only waited. */
  cancel(attempt: Attempt): boolean {
    const pending = this.waiting.find(({ context }) => context === attempt.context)
    if (pending !== undefined) remove(this.waiting, pending)
    for (const [connection, { context }] of this.opening) {
      if (context !== attempt.context) continue
      this.opening.delete(connection)
      connection.abort()
    }
    return pending !== undefined
  }

  /** The Child SA that IKE_AUTH is to make; undefined when nothing waits for one. */
  takeFirst(isChildless: boolean): ((isOurs: boolean) => ChildRequest) | undefined {
    const first = this.waiting[0]
    this.first = first
    this.awaitsFirstChild = first !== undefined && !isChildless
    return first && (isOurs => childRequest(first, isOurs, this.host.situation))
  }

  /** Opens what can be opened: attempts that an installed SA covers go on to TCP, others ask for one. */
  advance(now: Millis): void {
    const { host } = this
    if (this.waiting.length === 0 || !host.isOpenForAttempts || host.stack === undefined) return
    for (const pending of [...this.waiting]) {
      const flow = this.flowOf(pending, host.stack, now)
      if (flow !== undefined) this.open(pending, flow, host.stack, now)
      else if (pending.ticket === 0 && !this.awaitsFirstChild) {
        const request = childRequest(pending, host.facts?.isOurs === true, host.situation)
        pending.ticket = host.createChild(request, now)
      }
    }
  }

  private open(pending: Pending, flow: Flow, stack: TcpStack, now: Millis): void {
    const { host } = this
    remove(this.waiting, pending)
    host.emit({ kind: 'session', attempt: pending, session: host })
    const { noDelay, keepAlive } = pending.request
    const connection = stack.connect(flow, { noDelay, keepAlive }, now)
    if (connection === undefined) {
      const error = faultOf('EADDRINUSE', 'connect', flow)
      return host.emit({ kind: 'failed', attempt: pending, error })
    }
    this.opening.set(connection, pending)
  }

  /** The 4-tuple an attempt gets over an SA that is up; undefined when none covers it. */
  private flowOf(pending: Pending, stack: TcpStack, now: Millis): Flow | undefined {
    return flowOver(this.host.childrenInUse, pending, this.host.situation, stack, now)
  }

  /** TCP has connected, or failed: the attempt that it was, if it was one. */
  takeOpened(connection: TcpConnection): Pending | undefined {
    const pending = this.opening.get(connection)
    this.opening.delete(connection)
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
    const pending = this.takeTicket(ticket)
    const { stack } = this.host
    if (
      pending !== undefined &&
      stack !== undefined &&
      this.flowOf(pending, stack, now) === undefined
    ) {
      const given = [...sa.localSelectors, ...sa.remoteSelectors].map(formatSelector)
      this.askExactly(
        pending,
        new PeerRefusedError('TS_UNACCEPTABLE', 'The peer narrows the Child SA too far', {
          details: { given },
        }),
      )
    }
    this.advance(now)
  }

  /** False: no attempt waited for it. */
  noteChildFailed(ticket: number | undefined, error: IpsecError, now: Millis): boolean {
    if (ticket === undefined) this.awaitsFirstChild = false
    const pending = this.takeTicket(ticket)
    if (pending !== undefined) {
      // RFC 7296 §2.9: "expected to respond by requesting an SA for only the specific traffic".
      if (error.code === 'SINGLE_PAIR_REQUIRED') this.askExactly(pending, error)
      else this.fail(pending, error)
    }
    this.advance(now)
    return pending !== undefined
  }

  /** The IKE SA that was to make it ended: another is asked. */
  noteChildAbandoned(ticket: number, now: Millis): void {
    for (const pending of this.waiting) {
      if (pending.ticket === ticket) pending.ticket = 0
    }
    this.advance(now)
  }

  /** The attempt that waited for a Child SA, if any still does. */
  private takeTicket(ticket: number | undefined): Pending | undefined {
    const isFirst = ticket === undefined
    const pending = isFirst ? this.first : this.waiting.find(other => other.ticket === ticket)
    if (isFirst) this.first = undefined
    if (pending === undefined || !this.waiting.includes(pending)) return undefined
    pending.ticket = 0
    return pending
  }

  private askExactly(pending: Pending, error: IpsecError): void {
    if (pending.isExact) this.fail(pending, error)
    pending.isExact = true
  }

  // --- ends ---

  /**
   * An SA that was up has ended, or seems to have, under attempts that are not to blame: each begins once
   * more with a new one. `withBegun`: also those whose SYN was sent.
   */
  reopen(withBegun: boolean, now: Millis): void {
    const begun = [...this.opening].filter(([, { isSecond }]) => withBegun && !isSecond)
    for (const [connection] of begun) {
      this.opening.delete(connection)
      connection.abort()
    }
    const waiting = this.waiting.filter(({ isSecond }) => !isSecond)
    for (const pending of waiting) remove(this.waiting, pending)
    for (const { request, context } of [...begun.map(([, pending]) => pending), ...waiting]) {
      this.host.reopen({ request, context }, now)
    }
  }

  /** Every attempt that still waits for a Child SA fails. */
  failAll(error: Error): void {
    for (const pending of [...this.waiting]) this.fail(pending, error)
  }

  private fail(pending: Pending, error: Error): void {
    remove(this.waiting, pending)
    this.host.emit({ kind: 'failed', attempt: pending, error })
  }
}

/** `net` names the remote end in errors of connecting, and no end in those of an open connection. */
export const faultOf = (code: string, syscall: string | undefined, flow: Flow): Error =>
  socketError({
    code,
    syscall,
    ...(syscall === 'connect'
      ? { address: formatAddress(flow.remoteAddress), port: flow.remotePort }
      : {}),
  })

const remove = <T>(list: T[], item: T): void => {
  const at = list.indexOf(item)
  if (at >= 0) list.splice(at, 1)
}
