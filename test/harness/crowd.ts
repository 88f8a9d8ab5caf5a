/** Many clients of one server in virtual time, for what they do to each other. The server can be killed and started again. */
import type { CoreEvent, Connection, SessionHandle } from '../../lib/core/events.ts'
import { utf8 } from '../../lib/base/bytes.ts'
import { Caller, pathFrom, Target } from './attacker.ts'
import type { Options } from './world.ts'

/** Milliseconds one way. */
const DELAY = 20

export interface Member {
  readonly caller: Caller
  /** Since the last life of the server. */
  connectedAt: number | undefined
  readonly errors: { readonly at: number; readonly code: unknown }[]
  connections: Connection[]
}

export class Crowd {
  now = 1000
  server: Target
  readonly members: Member[]
  /** Datagrams of or to a server that does not run are lost. */
  isUp = true
  /** Opens a connection again as soon as one has ended. */
  persists = false
  private readonly options: Options
  private life = 1
  private readonly wire: { readonly at: number; readonly deliver: () => void }[] = []

  /** Clients with one address, as behind a NAT, or each with its own. */
  constructor(count: number, address: (i: number) => Uint8Array, client: Options, server: Options) {
    this.options = server
    this.server = this.start()
    this.members = Array.from({ length: count }, (_, i) => ({
      caller: new Caller(address(i), client, 1000 + i, this.now, 20_000 + i),
      connectedAt: undefined,
      errors: [],
      connections: [],
    }))
  }

  private start(): Target {
    const server = new Target(this.options, this.life++)
    server.core.enableCrashTokens(utf8('server'), this.now)
    server.now = this.now
    return server
  }

  connect(member: Member): void {
    this.sent(member, member.caller.connect())
  }

  kill(): void {
    this.isUp = false
    for (const member of this.members) member.connectedAt = undefined
  }

  restart(): void {
    this.server = this.start()
    this.isUp = true
  }

  /** Each client writes on each of its connections. */
  write(member: Member, octets: number): void {
    const { caller, connections } = member
    caller.now = this.now
    for (const connection of connections) {
      connection.send(new Uint8Array(octets))
      caller.core.wake(connection, this.now)
    }
    this.sent(member, caller.drain())
  }

  private sent(member: Member, datagrams: readonly Uint8Array[]): void {
    this.hear(member)
    const { localAddress, localPort } = member.caller.path
    for (const bytes of datagrams) {
      this.after(() => {
        if (!this.isUp) return
        this.server.now = this.now
        this.answered(this.server.send(bytes, pathFrom(localAddress, localPort)))
      })
    }
  }

  private answered(answers: ReturnType<Target['send']>): void {
    for (const { bytes, path } of answers) {
      const member = this.members.find(({ caller }) => caller.path.localPort === path.remotePort)
      if (member === undefined) continue
      this.after(() => {
        member.caller.now = this.now
        this.sent(member, member.caller.receive(bytes))
      })
    }
  }

  private after(deliver: () => void): void {
    this.wire.push({ at: this.now + DELAY, deliver })
  }

  private hear(member: Member): void {
    const events: CoreEvent[] = member.caller.events.splice(0)
    for (const event of events) {
      if (event.kind === 'connected') {
        member.connectedAt ??= this.now
        member.connections.push(event.connection)
      }
      if (event.kind !== 'failed' && event.kind !== 'closed') continue
      const { code } = (event.error ?? {}) as { code?: unknown }
      member.errors.push({ at: this.now, code })
      if (event.kind === 'closed')
        member.connections = member.connections.filter(other => other !== event.connection)
      if (this.persists) this.connect(member)
    }
  }

  get sessions(): readonly SessionHandle[] {
    return this.server.sessions
  }

  /** Lets time pass, at most `millis`, or until `done`. */
  run(millis: number, done: () => boolean = () => false): void {
    const end = this.now + millis
    while (!done()) {
      const timers = this.members.map(({ caller }) => caller.core.nextTimeout())
      const next = Math.min(
        this.wire[0]?.at ?? Infinity,
        this.isUp ? this.server.core.nextTimeout() : Infinity,
        ...timers,
      )
      if (next > end) break
      this.now = Math.max(this.now, next)
      while (this.wire.length > 0 && this.wire[0]!.at <= this.now) this.wire.shift()!.deliver()
      if (this.isUp && this.server.core.nextTimeout() <= this.now) {
        this.server.now = this.now
        this.server.core.handleTimeout(this.now)
        this.answered(this.server.drain())
      }
      for (const member of this.members) {
        const { caller } = member
        if (caller.core.nextTimeout() > this.now) continue
        caller.now = this.now
        caller.core.handleTimeout(this.now)
        this.sent(member, caller.drain())
      }
    }
    if (!done()) this.now = end
  }
}
