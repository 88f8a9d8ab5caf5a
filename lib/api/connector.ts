/**
 * From names to one open connection: the look-ups, and then one address of the IKE peer after the other,
 * families in turn, as `net` does with `autoSelectFamily` (RFC 8305 §4, §5). Where TCP needs one answer,
 * IKE needs several: an attempt is given up for the next when it hears nothing for the attempt timeout. An
 * address with an SA comes first, and is given up only when that SA is in doubt.
 */
import dns, { ADDRCONFIG, type LookupAddress } from 'node:dns'
import {
  getDefaultAutoSelectFamily,
  getDefaultAutoSelectFamilyAttemptTimeout,
  isIP,
} from 'node:net'
import type { Millis } from '../base/environment.ts'
import { blockedError, isBlocked, nodeError, type ConnectSettings } from './options.ts'

/** An attempt under way. */
export interface ConnectionAttempt {
  /** Datagrams that have come from this peer so far. */
  readonly heard: number
  /** It goes over an SA that answers as far as is known: one lost datagram says nothing. */
  readonly isLive: boolean
  /** Ends it without a word. */
  cancel(): void
}

/** What the connector needs of its socket. */
export interface ConnectorHost {
  emit(event: string, ...args: unknown[]): void
  /** Why no connection to `inner` can have the local end that is asked for. */
  bindMistake(inner: string): Error | undefined
  /** To `inner` through the IKE peer at `outer`; a failure is told by `failed`. */
  /** `isLast`: no other address is tried after it. */
  open(inner: string, outer: string, isLast: boolean): ConnectionAttempt
  /** There is an SA with that IKE peer and these options. */
  isLive(outer: string): boolean
  /** The end: no address could be reached. */
  fail(error: Error): void
}

/** The wait before it has a random part of a tenth; the rest is for the answer. */
const FIRST_REPEAT = 1.5

interface Target {
  readonly inner: string
  readonly outer: string
  readonly family: number
}

type Resolved = (addresses: readonly LookupAddress[]) => void
type Answer = (error: Error | null, found: string | LookupAddress[], family?: number) => void

export class Connector {
  private readonly settings: ConnectSettings
  private readonly host: ConnectorHost
  private targets: readonly Target[] = []
  private current = -1
  private trial: ConnectionAttempt | undefined
  private timer: NodeJS.Timeout | undefined
  private readonly errors: Error[] = []
  private isOver = false
  /** As `net` has it: only where there is more than one address to try. */
  attempted: string[] | undefined

  constructor(settings: ConnectSettings, host: ConnectorHost) {
    this.settings = settings
    this.host = host
  }

  /** As net: throws what a look-up throws. */
  start(): void {
    const { host, gateway } = this.settings
    if (gateway === undefined) {
      this.resolve(host, true, found =>
        this.begin(
          found.map(({ address, family }) => ({ inner: address, outer: address, family })),
        ),
      )
      return
    }
    this.resolve(host, false, services => {
      const inner = services[0]!.address
      try {
        this.resolve(gateway, true, found =>
          this.begin(found.map(({ address, family }) => ({ inner, outer: address, family }))),
        )
      } catch (error) {
        process.nextTick(() => this.end(error as Error))
      }
    })
  }

  /** The trial has become a connection. */
  succeeded(): void {
    this.isOver = true
    clearTimeout(this.timer)
    this.trial = undefined
  }

  /** Gives up what is under way. */
  stop(): void {
    this.isOver = true
    clearTimeout(this.timer)
    this.trial?.cancel()
    this.trial = undefined
  }

  /** The trial has failed. */
  failed(error: Error): void {
    if (this.isOver) return
    this.trial = undefined
    this.note('connectionAttemptFailed', error)
    this.next()
  }

  // --- names ---

  private resolve(host: string, mayBeSeveral: boolean, then: Resolved): void {
    const literal = isIP(host)
    if (literal !== 0) {
      process.nextTick(() => this.isOver || then([{ address: host, family: literal }]))
      return
    }
    const { settings } = this
    const family = settings.family ?? 0
    const isOpen = family !== 4 && family !== 6
    const selects = settings.autoSelectFamily ?? getDefaultAutoSelectFamily()
    const all = mayBeSeveral && isOpen && selects && settings.localAddress === undefined
    const hints = settings.hints ?? (isOpen ? ADDRCONFIG : 0)
    const done: Answer = (error, found, foundFamily) => {
      if (this.isOver) return
      const list: readonly LookupAddress[] = Array.isArray(found)
        ? found
        : [{ address: found, family: foundFamily ?? isIP(found) }]
      if (error !== null && error !== undefined) {
        this.host.emit('lookup', error, undefined, undefined, host)
        // As net does: a look-up that answers at once must not fail before anyone can listen.
        process.nextTick(() => this.end(error))
        return
      }
      for (const { address, family } of list) this.host.emit('lookup', null, address, family, host)
      if (this.isOver) return
      const usable = alternate(list)
      if (usable.length > 0) then(usable)
      else process.nextTick(() => this.end(this.unusable(list[0])))
    }
    const lookup = settings.lookup ?? dns.lookup
    lookup(host, { family: settings.family, hints, ...(all ? { all } : {}) }, done)
  }

  private unusable(first: LookupAddress | undefined): Error {
    const { host, port } = this.settings
    if (first === undefined || isIP(first.address) === 0) {
      const message = `Invalid IP address: ${first?.address}`
      return nodeError('ERR_INVALID_IP_ADDRESS', message, TypeError)
    }
    const message = `Invalid address family: ${first.family} ${host}:${port}`
    const error = nodeError('ERR_INVALID_ADDRESS_FAMILY', message, RangeError)
    return Object.assign(error, { host, port })
  }

  // --- addresses ---

  private begin(targets: readonly Target[]): void {
    // One address has no order, and asking costs a look through all options.
    const isLive =
      targets.length > 1 ? targets.map(({ outer }) => this.host.isLive(outer)) : [false]
    this.targets = [
      ...targets.filter((_, at) => isLive[at]),
      ...targets.filter((_, at) => !isLive[at]),
    ]
    if (targets.length > 1) this.attempted = []
    this.next()
  }

  private next(): void {
    clearTimeout(this.timer)
    if (this.isOver) return
    const { settings } = this
    const target = this.targets[++this.current]
    if (target === undefined) return this.end(this.summary())
    const { inner, outer, family } = target
    const unbound = this.host.bindMistake(inner)
    if (unbound !== undefined) {
      this.errors.push(unbound)
      return this.next()
    }
    const blocked = [inner, outer].find(address => isBlocked(settings.blockList, address))
    if (blocked !== undefined) {
      const error = blockedError(blocked)
      // As net does: a single address was no attempt.
      if (this.targets.length === 1) return this.end(error)
      this.note('connectionAttemptFailed', error)
      return this.next()
    }
    this.attempted?.push(`${outer}:${settings.port}`)
    this.host.emit('connectionAttempt', outer, settings.port, family)
    if (this.isOver) return
    const isLast = this.current === this.targets.length - 1
    this.trial = this.host.open(inner, outer, isLast)
    if (!isLast) this.watch(this.trial, this.trial.heard)
  }

  /** The first repeat of IKE_SA_INIT, which goes out a little later than `initial`, has time for its answer. */
  private get attemptTimeout(): Millis {
    const { context, autoSelectFamilyAttemptTimeout } = this.settings
    const timeout = autoSelectFamilyAttemptTimeout ?? getDefaultAutoSelectFamilyAttemptTimeout()
    // A socket that connects has credentials.
    return Math.max(timeout, FIRST_REPEAT * context!.policy.retransmit.initial)
  }

  private watch(trial: ConnectionAttempt, heard: number): void {
    this.timer = setTimeout(() => {
      if (this.isOver || this.trial !== trial) return
      if (trial.isLive || trial.heard > heard) return this.watch(trial, trial.heard)
      this.trial = undefined
      trial.cancel()
      const { outer } = this.targets[this.current]!
      const { port } = this.settings
      const error = nodeError('ETIMEDOUT', `connect ETIMEDOUT ${outer}:${port}`)
      this.note(
        'connectionAttemptTimeout',
        Object.assign(error, { syscall: 'connect', address: outer, port }),
      )
      this.next()
    }, this.attemptTimeout)
  }

  private note(event: 'connectionAttemptFailed' | 'connectionAttemptTimeout', error: Error): void {
    this.errors.push(error)
    const { outer, family } = this.targets[this.current]!
    const facts = [outer, this.settings.port, family]
    if (event === 'connectionAttemptFailed') this.host.emit(event, ...facts, error)
    else this.host.emit(event, ...facts)
  }

  /** As `net`: the one error there was, or all of them under the code of the first. */
  private summary(): Error {
    const { errors } = this
    if (this.targets.length === 1) return errors[0]!
    const { code } = errors[0] as NodeJS.ErrnoException
    return Object.assign(new AggregateError(errors, ''), { code })
  }

  private end(error: Error): void {
    if (this.isOver) return
    this.stop()
    this.host.fail(error)
  }
}

/** Each address once, the families in turn, beginning with that of the first (RFC 8305 §4). */
const alternate = (found: readonly LookupAddress[]): LookupAddress[] => {
  const usable = found.filter(
    ({ address, family }, at) =>
      isIP(address) !== 0 &&
      (family === 4 || family === 6) &&
      found.findIndex(other => other.address === address) === at,
  )
  const preferred = usable.filter(({ family }) => family === usable[0]!.family)
  const others = usable.filter(({ family }) => family !== usable[0]!.family)
  const turns: LookupAddress[] = []
  for (let i = 0; i < Math.max(preferred.length, others.length); i++) {
    for (const list of [preferred, others]) {
      if (list[i] !== undefined) turns.push(list[i]!)
    }
  }
  return turns
}
