/** What a scenario is, and the helpers that make one short. */
import assert from 'node:assert/strict'
import { listen, type Options, type ProtectedServer, type ProtectedSocket } from './product.ts'
import { Daemon, PEER_PORT, PSK, SERVICE, type DaemonOptions, type Rig } from './rig.ts'
import { answer, type Plan, type Progress } from './transfer.ts'

export interface Scenario {
  readonly name: string
  /** What the product is. */
  readonly role: 'initiator' | 'responder'
  readonly peer: string
  /** Time limit; default 20. */
  readonly seconds?: number
  /** Scenarios with a lock in common do not run at the same time. */
  readonly lock?: string | readonly string[]
  /** It waits until the guest has booted. */
  readonly guest?: boolean
  run(context: Context): Promise<void>
}

/** A short transfer, and one long enough for something to happen meanwhile: about three seconds. */
export const SHORT: Plan = { up: 300_000, down: 300_000 }
export const SLOW: Plan = { up: 1_200_000, down: 1_200_000, rate: 400_000 }

/** The port of our servers inside the tunnel. */
export const SERVER_PORT = 7000

/** One scenario's own names, addresses and helpers: no two scenarios share an identity or an address. */
export class Context {
  readonly rig: Rig
  readonly number: number
  /** The octet of its inner addresses: 254 scenarios later it is another's. */
  readonly net: number
  /** Name of this scenario's connection and Child SA at strongSwan as initiator. */
  readonly name: string
  /** Identity of our client. */
  readonly clientId: string
  /** Inner address of our server. */
  readonly serverAddress: string
  readonly ikePort: number
  /** Whose logs tell the story when it fails. */
  readonly daemons: Daemon[]
  readonly logFrom: Map<Daemon, number>
  /** Our sockets of servers, for the report of a failure. */
  readonly accepted: ProtectedSocket[] = []
  /** Others that want the same locks may run from now on. */
  unlock = (): void => {}
  private readonly cleanups: (() => unknown)[] = []

  constructor(rig: Rig, number: number, role: Scenario['role']) {
    this.rig = rig
    this.number = number
    this.name = `s${number}`
    this.clientId = `s${number}.client.rig.test`
    this.net = ((number - 1) % 254) + 1
    this.serverAddress = `10.94.${this.net}.1`
    this.ikePort = 24_000 + number
    this.daemons = [role === 'initiator' ? rig.responder : rig.initiator]
    this.logFrom = new Map(this.daemons.map(daemon => [daemon, daemon.log.length]))
  }

  /** What to undo at the end, in reverse order. */
  atEnd(cleanup: () => unknown): void {
    this.cleanups.push(cleanup)
  }

  async end(): Promise<void> {
    for (const cleanup of this.cleanups.splice(0).reverse())
      await Promise.resolve(cleanup()).catch(() => {})
  }

  // --- the product as initiator ---

  /** Options of our client for strongSwan's profile at 10.90.0.NN, with an address from its pool. */
  client(profile: number, extra: Options = {}): Options {
    return {
      host: SERVICE.host,
      port: SERVICE.port,
      gateway: `10.90.0.${profile}`,
      ikePort: PEER_PORT,
      psk: PSK,
      localId: this.clientId,
      remoteId: 'psk.rig.test',
      mode: 'tunnel',
      virtualAddress: true,
      idleTimeout: 200,
      ...extra,
    }
  }

  /** The same without the configuration payload: our own inner address towards one host. */
  hostToHost(extra: Options = {}): Options {
    return this.client(11, {
      remoteId: 'h2h.rig.test',
      virtualAddress: false,
      localTs: [`10.92.${this.net}.1/32`],
      remoteTs: ['10.91.0.1/32'],
      ...extra,
    })
  }

  /** Another strongSwan as responder, on its own ports. */
  async startDaemon(
    options: Partial<DaemonOptions> = {},
  ): Promise<{ daemon: Daemon; port: number }> {
    const port = 14_500 + this.number
    const daemon = new Daemon(`responder-${this.number}`, {
      conf: 'responder',
      ports: [port + 1000, port],
      table: 300 + this.number,
      intermediate: 'inter-s',
      ...options,
    })
    this.daemons.push(daemon)
    this.atEnd(() => daemon.kill())
    await daemon.start()
    return { daemon, port }
  }

  // --- the product as responder ---

  server(extra: Options = {}): Options {
    return {
      psk: PSK,
      localId: 'server.rig.test',
      ikePort: this.ikePort,
      mode: 'tunnel',
      localTs: [`${this.serverAddress}/32`],
      ...extra,
    }
  }

  /** Gives the other end an address: with it, strongSwan needs `WITH_ADDRESS`. */
  get pool(): Options {
    return { addressPool: [`10.94.${this.net}.128/25`], dns: ['10.94.0.53'] }
  }

  /** Our server; every connection is answered and kept in the list. */
  async listen(
    extra: Options = {},
  ): Promise<{ server: ProtectedServer; sockets: ProtectedSocket[] }> {
    const sockets: ProtectedSocket[] = []
    const server = await listen(this.server(extra), SERVER_PORT, socket => {
      sockets.push(socket)
      this.accepted.push(socket)
      answer(socket)
    })
    this.atEnd(() => {
      for (const socket of sockets) socket.destroy()
      // Its UDP ports are free only then.
      return new Promise<void>(resolve => server.close(() => resolve()))
    })
    return { server, sockets }
  }

  /** Adds this scenario's connection towards our server to strongSwan. */
  async prepare(
    lines: ConnectionLines = {},
    daemon = this.rig.initiator,
    name = this.name,
  ): Promise<void> {
    if (!this.daemons.includes(daemon)) this.daemons.push(daemon)
    await daemon.add(
      name,
      `${name} : to-us {
  remote_port = ${this.ikePort}
  ${lines.connection ?? ''}
  local { auth = psk
    id = ${name}.client.rig.test
    ${lines.local ?? ''} }
  remote { auth = psk
    id = server.rig.test
    ${lines.remote ?? ''} }
  children { ${name} : to-net {
    local_ts = 10.95.0.${daemon.netns === 'home' ? 2 : 1}/32
    remote_ts = ${this.serverAddress}/32
    ${lines.child ?? ''} } }
}`,
    )
    this.atEnd(() => daemon.terminate(name))
  }

  /** strongSwan in the guest, once that has booted. */
  async inGuest(): Promise<Daemon> {
    await this.rig.guest.ready()
    const { daemon } = this.rig.guest
    this.daemons.unshift(daemon)
    this.logFrom.set(daemon, daemon.log.length)
    return daemon
  }

  /** The guest's address for this scenario alone. */
  get guestAddress(): string {
    return `10.98.1.${this.net}`
  }

  /** Configures, initiates, and moves data from a kernel TCP client to our server. */
  async fetch(lines: ConnectionLines = {}, plan: Plan = SHORT): Promise<void> {
    await this.prepare(lines)
    await this.rig.initiator.initiate(this.name)
    await this.kernel(plan)
  }

  /** What strongSwan said since this scenario began; others may have spoken too. */
  said(pattern: RegExp, daemon = this.daemons[0]!): Promise<RegExpExecArray> {
    return daemon.waitForLog(pattern, 500, this.logFrom.get(daemon) ?? 0)
  }

  /** How often strongSwan has established an IKE SA with our client, or as our client. */
  get established(): number {
    const line = new RegExp(`established between .*\\[${this.clientId}\\]`, 'g')
    return [...this.daemons[0]!.log.matchAll(line)].length
  }

  async kernel(plan: Plan, progress?: Progress): Promise<void> {
    await this.rig.peer.run(
      { kind: 'kernel', host: this.serverAddress, port: SERVER_PORT, plan },
      progress,
    )
  }
}

/** Lines of strongSwan's configuration, for the section each is named after. */
export interface ConnectionLines {
  readonly connection?: string
  readonly local?: string
  readonly remote?: string
  readonly child?: string
}

/** strongSwan asks for an address by the configuration payload. */
export const WITH_ADDRESS: ConnectionLines = {
  connection: 'vips = 0.0.0.0',
  child: 'local_ts = dynamic',
}

/** Calls each once, in turn, when the transfer has passed that part of what it sends and the act before it is done. */
export const atParts = (
  plan: Plan,
  acts: Readonly<Record<number, () => unknown>>,
): ((sent: number) => Promise<void>) => {
  const left = Object.entries(acts).map(([part, act]) => ({ at: Number(part) * plan.up, act }))
  let last = Promise.resolve()
  return sent => {
    while (left[0] !== undefined && sent >= left[0].at) {
      const { act } = left.shift()!
      last = last.then(() => act()).then(() => {})
    }
    return last
  }
}

/** The error with this code, or this text in its code or message; anything else fails. */
export const failsWith = async (promise: Promise<unknown>, pattern: RegExp): Promise<Error> => {
  const error = await promise.then(
    () => undefined,
    (reason: Error & { code?: string }) => reason,
  )
  assert.ok(error, `an error like ${pattern} was expected`)
  assert.ok(!/^ERR_(INVALID|MISSING)/.test(error.code ?? ''), `not by an option: ${error.message}`)
  assert.match(`${error.code ?? ''} ${error.message}`, pattern)
  return error
}
