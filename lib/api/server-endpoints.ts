/**
 * The UDP port of servers. Servers of this process with equal options of IKE share one; a connection finds its
 * server by the port inside the tunnel. Who the peers are is the endpoint's question, so servers with other
 * options cannot have the same UDP port.
 */
import { Endpoint, type EndpointWatcher } from '../node/endpoint.ts'
import { makeTracer } from './channels.ts'
import { nodeError, type ServerSettings } from './options.ts'
import { answerQuestion } from './questions.ts'
import { peerPrint, securityTowards, type Security } from './secure-context.ts'

/** What concerns no single connection is told to every server of the endpoint. */
export type EndpointUser = Omit<EndpointWatcher, 'onQuestion'>

type Bound = (error: NodeJS.ErrnoException | undefined) => void

export interface Where {
  readonly host: string | undefined
  readonly ipv6Only: boolean
}

/** By address and UDP port; where any port will do, from when it is known. */
const shared = new Map<string, ServerEndpoint>()

export class ServerEndpoint {
  readonly endpoint: Endpoint
  private readonly users = new Set<EndpointUser>()
  private settings: ServerSettings
  private print: string
  private key: string | undefined
  /** Servers that wait for the port; undefined once it is known what became of it. */
  private waiting: Bound[] | undefined = []

  private constructor(print: string, settings: ServerSettings) {
    this.settings = settings
    this.print = print
    const all = (tell: (user: EndpointUser) => void): void => [...this.users].forEach(tell)
    this.endpoint = new Endpoint({
      tracer: makeTracer(settings.given.keyLog),
      responder: securityOf(settings),
      watcher: {
        onRefused: (...facts) => all(user => user.onRefused(...facts)),
        onSessionUp: (...facts) => all(user => user.onSessionUp(...facts)),
        onSessionDown: (...facts) => all(user => user.onSessionDown(...facts)),
        onQuestion: question => answerQuestion(question, this.settings.given),
      },
    })
  }

  /**
   * The endpoint of one more server, bound or being bound; `done` is called once, later. An error there is
   * EADDRINUSE when other options have the port, or whatever the system says.
   */
  static use(
    user: EndpointUser,
    settings: ServerSettings,
    where: Where,
    done: Bound,
  ): ServerEndpoint | undefined {
    const { ikePort } = settings
    const print = printOf(settings)
    const known = ikePort === 0 ? undefined : shared.get(keyOf(where, ikePort))
    if (known !== undefined && known.print !== print) {
      process.nextTick(done, takenByOthers(where.host, ikePort))
      return undefined
    }
    if (known !== undefined) {
      known.users.add(user)
      if (known.waiting === undefined) process.nextTick(done)
      else known.waiting.push(done)
      return known
    }
    const made = new ServerEndpoint(print, settings)
    made.users.add(user)
    if (ikePort !== 0) made.noteKey(where, ikePort)
    made.bind(where, ikePort, done)
    return made
  }

  private noteKey(where: Where, ikePort: number): void {
    this.key = keyOf(where, ikePort)
    shared.set(this.key, this)
  }

  private bind(where: Where, ikePort: number, first: Bound): void {
    this.waiting = [first]
    this.endpoint.bind(where.host, ikePort, where.ipv6Only, error => {
      const { waiting = [] } = this
      this.waiting = undefined
      if (error !== undefined) this.forget()
      else if (ikePort === 0) this.noteKey(where, this.endpoint.udpAddress!.port)
      // The system may answer within the call.
      for (const done of waiting) process.nextTick(done, error)
    })
  }

  private forget(): void {
    if (this.key !== undefined && shared.get(this.key) === this) shared.delete(this.key)
  }

  /** New SAs of every server of this endpoint are negotiated with these. */
  setCredentials(settings: ServerSettings): void {
    this.settings = settings
    this.print = printOf(settings)
    this.endpoint.core.setResponder(securityOf(settings))
  }

  /** One server less. With the last one the SAs are deleted, and then `done` is called. */
  release(user: EndpointUser, done: () => void): void {
    if (this.users.size > 1) {
      this.users.delete(user)
      return done()
    }
    this.forget()
    this.endpoint.lingerAndClose(() => {
      this.users.delete(user)
      this.endpoint.destroy()
      done()
    })
  }

  /** One server less, whose port was never bound. */
  abandon(user: EndpointUser): void {
    this.users.delete(user)
    if (this.users.size > 0) return
    this.forget()
    this.endpoint.destroy()
  }
}

const optionsOf = ({ given }: ServerSettings): Readonly<Record<string, unknown>> =>
  given as Readonly<Record<string, unknown>>

const securityOf = (settings: ServerSettings): Security =>
  securityTowards(settings.context, optionsOf(settings))

const printOf = (settings: ServerSettings): string =>
  `${settings.context.print}|${peerPrint(optionsOf(settings))}`

const keyOf = ({ host, ipv6Only }: Where, ikePort: number): string =>
  `${host ?? '*'}|${ikePort}|${String(ipv6Only)}`

const takenByOthers = (host: string | undefined, port: number): NodeJS.ErrnoException => {
  const words =
    `UDP port ${port} belongs to a server of this process with other options of IKE. ` +
    'Servers with equal options share it; with others, give one of them another "ikePort"'
  return Object.assign(nodeError('EADDRINUSE', words), {
    syscall: 'bind',
    address: host ?? '::',
    port,
  })
}
