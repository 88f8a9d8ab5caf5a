/**
 * The UDP port of servers, and of sockets that name an endpoint. Servers of this process with equal options of IKE share
 * one; a connection finds its server by the port inside the tunnel. Who the peers are is a question to the endpoint; which
 * servers a peer may reach is a question to each of those (`authorize`).
 */
import { isAccelerated } from '../base/ffi.ts'
import type { Answer, Connection, Question, SessionHandle } from '../core/events.ts'
import {
  Endpoint,
  type ConnectionOwner,
  type DatagramOwner,
  type EndpointWatcher,
  type ListenerOwner,
} from '../node/endpoint.ts'
import { makeTracer } from './channels.ts'
import { nodeError, type ServerSettings } from './options.ts'
import { answerQuestion, askAuthorization, type Given } from './questions.ts'
import {
  optionsOf,
  peerPrint,
  portablePrint,
  securityTowards,
  type Security,
} from './secure-context.ts'

/** What concerns no single connection is told to every user whom it concerns. */
export interface EndpointUser extends Omit<EndpointWatcher, 'onQuestion'> {
  /** Its `authorize` decides whether a peer may reach it. */
  readonly given: Given
  /** It is the whole endpoint's: whom it refuses, nobody receives. */
  readonly isOwner: boolean
  /** The endpoint that its options name. */
  readonly of: object | undefined
  close(done: () => void): void
}

/** Who accepts connections at a port. */
export type Acceptor = ListenerOwner['onConnection']

/** How a server listens at a port. */
export interface ListenTerms {
  readonly backlog: number
  /** Others may listen there too, if they say the same. */
  readonly reusePort: boolean
  readonly accept: Acceptor
}

/** A port that several servers listen at; connections go to those that admit the peer, by turns. */
class ReusedPort implements ListenerOwner {
  private owners: readonly ListenerOwner[] = []
  private turn = 0
  private close: (() => void) | undefined

  /** `close` is called when the last one has left. */
  open(first: ListenerOwner, close: () => void): () => void {
    this.close = close
    return this.join(first)
  }

  join(owner: ListenerOwner): () => void {
    this.owners = [...this.owners, owner]
    return () => {
      this.owners = this.owners.filter(other => other !== owner)
      if (this.owners.length === 0) this.close?.()
    }
  }

  admits(session: SessionHandle): boolean {
    return this.owners.some(owner => owner.admits(session))
  }

  onConnection(connection: Connection, session: SessionHandle): ConnectionOwner | undefined {
    const admitting = this.owners.filter(owner => owner.admits(session))
    return admitting[this.turn++ % admitting.length]?.onConnection(connection, session)
  }
}

type Bound = (error: NodeJS.ErrnoException | undefined) => void

/** What of its settings an endpoint needs. */
export type EndpointSettings = Pick<ServerSettings, 'given' | 'context' | 'ikePort'>

export interface Where {
  /** IP addresses; undefined: all of the host. */
  readonly hosts: readonly (string | undefined)[]
  readonly ipv6Only: boolean
  /** Other processes and threads that say the same bind the UDP port too. */
  readonly reusePort: boolean
}

/** Those that `createEndpoint` made, by what it returned. */
const named = new WeakMap<object, SharedEndpoint>()

/** From now on `endpoint` as an option means this one. */
export const nameEndpoint = (endpoint: object, made: SharedEndpoint): void =>
  void named.set(endpoint, made)

/** What an option `endpoint` names; undefined: it names none. */
export const namedEndpoint = (endpoint: unknown): SharedEndpoint | undefined =>
  typeof endpoint === 'object' && endpoint !== null ? named.get(endpoint) : undefined

const closing = new WeakSet<object>()

/** From now on nothing new goes over it. */
export const closeNamed = (endpoint: object): void => void closing.add(endpoint)

/** Nothing new goes over what an option `endpoint` names. */
export const isClosing = (endpoint: object | undefined): boolean =>
  endpoint !== undefined && closing.has(endpoint)

/** By addresses and UDP port; where any port will do, from when it is known. */
const shared = new Map<string, SharedEndpoint>()

/** As `shared`: who waits until an endpoint that has no users any more has told its peers, and gives its port up. */
const leaving = new Map<string, (() => void)[]>()

export class SharedEndpoint {
  readonly endpoint: Endpoint
  private readonly users = new Set<EndpointUser>()
  private settings: EndpointSettings
  private print: string
  private key: string | undefined
  private isClosed = false
  /** Users that wait for the port; undefined once it is known what became of it. */
  private waiting: Bound[] | undefined = []
  private readonly reused = new Map<number, ReusedPort>()
  /** Whom a peer may reach that has authenticated itself, as each has said when it was asked. */
  private readonly verdicts = new WeakMap<object, Map<EndpointUser, boolean>>()

  private constructor(print: string, settings: EndpointSettings) {
    this.settings = settings
    this.print = print
    this.endpoint = new Endpoint({
      tracer: makeTracer(settings.given.keyLog),
      responder: securityOf(settings),
      isAccelerated: isAccelerated(settings.context.policy.accelerate),
      watcher: {
        onRefused: (...facts) => [...this.users].forEach(user => user.onRefused(...facts)),
        onSessionUp: session => this.usersOf(session).forEach(user => user.onSessionUp(session)),
        onSessionDown: (session, error) =>
          this.usersOf(session).forEach(user => user.onSessionDown(session, error)),
        onQuestion: (question, of) =>
          of === undefined && question.kind === 'authorize'
            ? this.authorize(question)
            : answerQuestion(question, (of as Given | undefined) ?? this.settings.given),
      },
    })
  }

  /**
   * The endpoint of one more user, bound or being bound; `done` is called once, later. An error there is
   * EADDRINUSE when other options have the port, or whatever the system says.
   */
  static use(
    user: EndpointUser,
    settings: EndpointSettings,
    where: Where,
    done: Bound,
  ): SharedEndpoint | undefined {
    const { ikePort } = settings
    const print = printOf(settings)
    const known = ikePort === 0 ? undefined : shared.get(keyOf(where, ikePort))
    if (known !== undefined && known.print !== print) {
      process.nextTick(done, takenByOthers(where, ikePort))
      return undefined
    }
    if (known !== undefined) {
      known.join(user, done)
      return known
    }
    const made = new SharedEndpoint(print, settings)
    made.users.add(user)
    if (ikePort !== 0) made.noteKey(where, ikePort)
    made.waiting = [done]
    const bind = (): void => made.bind(where, ikePort)
    const before = leaving.get(keyOf(where, ikePort))
    if (before === undefined) bind()
    else before.push(bind)
    return made
  }

  /** One user more. */
  join(user: EndpointUser, done: Bound): void {
    if (this.isClosed) return void process.nextTick(done, notRunning())
    this.users.add(user)
    if (this.waiting === undefined) process.nextTick(done)
    else this.waiting.push(done)
  }

  private noteKey(where: Where, ikePort: number): void {
    this.key = keyOf(where, ikePort)
    shared.set(this.key, this)
  }

  private bind(where: Where, ikePort: number): void {
    // It may be over before its turn comes.
    if (this.isClosed) return
    const { hosts: addresses, ipv6Only, reusePort } = where
    const place = { addresses, port: ikePort, ipv6Only, reusePort }
    this.endpoint.bind(
      place,
      () => portablePrint(optionsOf(this.settings)),
      error => {
        const { waiting = [] } = this
        this.waiting = undefined
        if (error !== undefined) this.forget()
        else if (ikePort === 0) this.noteKey(where, this.endpoint.udpAddress!.port)
        // The system may answer within the call.
        for (const done of waiting) process.nextTick(done, error)
      },
    )
  }

  private forget(): void {
    this.isClosed = true
    if (this.key !== undefined && shared.get(this.key) === this) shared.delete(this.key)
  }

  /** New SAs of every user of this endpoint are negotiated with these. */
  setCredentials(settings: EndpointSettings): void {
    this.settings = settings
    this.print = printOf(settings)
    this.endpoint.core.setResponder(securityOf(settings))
  }

  // --- who may reach whom ---

  /** A peer may come in when somebody is there who receives it; the first policy for it that anybody gives holds. */
  private async authorize(question: Question & { kind: 'authorize' }): Promise<Answer> {
    const asked = [...this.users]
    const answers = await Promise.all(
      asked.map(user => askAuthorization(question, this.optionsFor(user))),
    )
    const verdicts = new Map(asked.map((user, at) => [user, isYes(answers[at])]))
    this.verdicts.set(question.peer.proven, verdicts)
    const refusal = asked.findIndex((user, at) => user.isOwner && !isYes(answers[at]))
    const ofServers = answers.filter((_, at) => asked[at]?.isOwner === false)
    const isWanted = refusal < 0 && (ofServers.length === 0 || ofServers.some(isYes))
    const policy = answers.find(answer => typeof answer === 'object' && 'policy' in answer)
    return { authorize: isWanted ? (policy ?? true) : (answers[refusal] ?? ofServers[0]) }
  }

  private optionsFor({ given: { authorize } }: EndpointUser): Given {
    return { ...this.settings.given, authorize }
  }

  /** Undefined: that user has not been asked about the peer of this session yet. */
  private verdict(user: EndpointUser, session: SessionHandle): boolean | undefined {
    return user.given.authorize === undefined
      ? true
      : this.verdicts.get(session.peer.proven)?.get(user)
  }

  private usersOf(session: SessionHandle): readonly EndpointUser[] {
    return [...this.users].filter(
      user => user.isOwner || (!session.isClient && this.verdict(user, session) === true),
    )
  }

  /** Connections to that port are `accept`'s, from peers that the user lets in. Undefined: the port is taken. */
  listen(
    user: EndpointUser,
    port: number,
    { backlog, reusePort, accept }: ListenTerms,
  ): (() => void) | undefined {
    const owner: ListenerOwner = {
      admits: session => this.verdict(user, session) !== false,
      onConnection: (connection, session) =>
        this.verdict(user, session) === true
          ? accept(connection, session)
          : this.decide(user, connection, session, accept),
    }
    if (!reusePort) return this.endpoint.listen(port, backlog, owner)
    const known = this.reused.get(port)
    if (known !== undefined) return known.join(owner)
    const made = new ReusedPort()
    const close = this.endpoint.listen(port, backlog, made)
    if (close === undefined) return undefined
    this.reused.set(port, made)
    return made.open(owner, () => {
      this.reused.delete(port)
      close()
    })
  }

  /** Datagrams to that port are `receive`'s, from peers that the user lets in. Undefined: the port is taken. */
  openDatagrams(
    user: EndpointUser,
    port: number,
    receive: DatagramOwner['onDatagram'],
  ): (() => void) | undefined {
    return this.endpoint.openDatagrams(port, {
      admits: session => session.isClient || this.verdict(user, session) !== false,
      onDatagram: (datagram, session) => {
        if (session.isClient || this.verdict(user, session) === true) receive(datagram, session)
        // Datagrams may be lost: what comes before the user has said whether it wants the peer is.
        else void this.ask(user, session)
      },
    })
  }

  /** The session is older than the user. */
  private async ask(user: EndpointUser, session: SessionHandle): Promise<boolean> {
    const question = { kind: 'authorize', peer: session.peer, path: session.path } as const
    const isWanted = isYes(await askAuthorization(question, this.optionsFor(user)))
    const verdicts = this.verdicts.get(session.peer.proven) ?? new Map<EndpointUser, boolean>()
    this.verdicts.set(session.peer.proven, verdicts.set(user, isWanted))
    return isWanted
  }

  /** The session is older than the user: its connection waits until the user has said whether it wants the peer. */
  private decide(
    user: EndpointUser,
    connection: Connection,
    session: SessionHandle,
    accept: Acceptor,
  ): ConnectionOwner {
    let isOver = false
    let hasEnded = false
    const ignore = (): void => undefined
    void this.ask(user, session).then(isWanted => {
      if (isOver) return
      const owner = isWanted ? accept(connection, session) : undefined
      connection.context = owner
      if (owner === undefined) connection.abort()
      else if (hasEnded) owner.onEnded()
      else owner.onReadable()
      this.endpoint.wake(connection)
    })
    return {
      onSession: ignore,
      onConnected: ignore,
      onReadable: ignore,
      onWritable: ignore,
      onEnded: () => (hasEnded = true),
      onClosed: () => (isOver = true),
    }
  }

  // --- the end ---

  /** Closes the users whose options name that endpoint. */
  closeOf(named: object, done: () => void): void {
    const closing = [...this.users].filter(user => user.of === named)
    let left = closing.length
    const closed = (): void => {
      if (--left === 0) done()
    }
    if (left === 0) done()
    else for (const user of closing) user.close(closed)
  }

  /** One user less. With the last one the SAs are deleted, and then `done` is called. */
  release(user: EndpointUser, done: () => void): void {
    if (this.users.size > 1) {
      this.users.delete(user)
      return done()
    }
    this.forget()
    const { key } = this
    const next: (() => void)[] = []
    if (key !== undefined) leaving.set(key, next)
    this.endpoint.lingerAndClose(() => {
      this.users.delete(user)
      this.endpoint.destroy()
      if (key !== undefined && leaving.get(key) === next) leaving.delete(key)
      for (const bind of next) bind()
      done()
    })
  }

  /** One user less, whose port was never bound. */
  abandon(user: EndpointUser): void {
    this.users.delete(user)
    if (this.users.size > 0) return
    this.forget()
    this.endpoint.destroy()
  }
}

export const notRunning = (): NodeJS.ErrnoException =>
  nodeError('ERR_SERVER_NOT_RUNNING', 'The endpoint is not running.')

const isYes = (answer: unknown): boolean =>
  answer === true || (typeof answer === 'object' && answer !== null && 'policy' in answer)

/** The application is asked about each peer, since servers with an `authorize` may come later. */
const securityOf = (settings: EndpointSettings): Security => {
  const { policy, credentials } = securityTowards(settings.context, optionsOf(settings))
  return { policy, credentials: { ...credentials, asksAuthorization: true } }
}

/** Whom an endpoint expects is part of it; whom a server lets in is not. */
const printOf = (settings: EndpointSettings): string =>
  `${settings.context.print}|${peerPrint({ ...optionsOf(settings), authorize: undefined })}`

const keyOf = ({ hosts, ipv6Only }: Where, ikePort: number): string =>
  `${hosts.map(host => host ?? '*').join(' ')}|${ikePort}|${String(ipv6Only)}`

const takenByOthers = ({ hosts }: Where, port: number): NodeJS.ErrnoException => {
  const words =
    `UDP port ${port} belongs to a server of this process with other options of IKE. Servers with equal options share ` +
    'it, and createEndpoint() makes one for all of them: narrow each by "authorize", or give one of them another "ikePort"'
  return Object.assign(nodeError('EADDRINUSE', words), {
    syscall: 'bind',
    address: hosts[0] ?? '::',
    port,
  })
}
