/**
 * Which sockets share an IKE SA: those of this process towards the same gateway with the same options.
 * An endpoint of its own goes when its last SA is gone.
 */
import { parseAddress } from '../base/address.ts'
import { isAccelerated } from '../base/ffi.ts'
import { Endpoint, type EndpointWatcher, type RemoteGateway } from '../node/endpoint.ts'
import { makeTracer } from './channels.ts'
import type { ConnectSettings } from './options.ts'
import { answerQuestion } from './questions.ts'
import { namedEndpoint } from './shared-endpoint.ts'
import { optionsOf, peerPrint, securityTowards } from './secure-context.ts'

export interface ClientContext {
  /** Of the gateway: an IP address and its UDP port. */
  readonly address: string
  readonly port: number
  readonly settings: ConnectSettings
}

/** Of sockets that name no endpoint. */
const endpoints = new Map<string, Endpoint>()

/** Only certificates are for a name; by pre-shared keys all names of an address are one peer. */
const peerNameOf = ({ given, gateway, host }: ConnectSettings): string | undefined =>
  given.ca === undefined ? undefined : (gateway ?? host)

const keyOf = ({ address, port, settings }: ClientContext): string =>
  [
    address,
    port,
    peerNameOf(settings) ?? '',
    settings.context!.print,
    peerPrint(optionsOf(settings)),
  ].join('|')

/** There is an SA with that gateway and these options, and nothing says that the peer is gone. */
export const hasLiveSa = (context: ClientContext): boolean => {
  const key = keyOf(context)
  const shared = namedEndpoint(context.settings.given.endpoint)
  return shared === undefined ? endpoints.get(key)?.isLive() === true : shared.endpoint.isLive(key)
}

/** What a connection goes over: the endpoint, and which of its gateways, where it has several. */
export interface ClientWay {
  readonly endpoint: Endpoint
  readonly gateway: RemoteGateway | undefined
}

export const clientWay = (context: ClientContext): ClientWay => {
  const { address, port, settings } = context
  const shared = namedEndpoint(settings.given.endpoint)
  if (shared === undefined) return { endpoint: ownEndpoint(context), gateway: undefined }
  const gateway = {
    ...securityTowards(settings.context!, optionsOf(settings), peerNameOf(settings)),
    name: keyOf(context),
    address,
    port,
    remote: parseAddress(address.split('%')[0]!)!,
    context: settings.given,
  }
  return { endpoint: shared.endpoint, gateway }
}

const ownEndpoint = (context: ClientContext): Endpoint => {
  const { address, port, settings } = context
  const key = keyOf(context)
  const known = endpoints.get(key)
  if (known !== undefined) return known
  const peerName = peerNameOf(settings)
  const security = securityTowards(settings.context!, optionsOf(settings), peerName)
  const endpoint = new Endpoint({
    tracer: makeTracer(settings.given.keyLog),
    watcher: watcherOf(settings.given),
    isAccelerated: isAccelerated(security.policy.accelerate),
  })
  endpoints.set(key, endpoint)
  const forget = (): void => {
    if (endpoints.get(key) === endpoint) endpoints.delete(key)
    endpoint.destroy()
  }
  endpoint.whenIdle(forget)
  endpoint.openTowards(address, port, parseAddress(address.split('%')[0]!)!, security, forget)
  return endpoint
}

const watcherOf = (given: ConnectSettings['given']): EndpointWatcher => ({
  onRefused() {},
  onSessionUp() {},
  onSessionDown() {},
  onQuestion: question => answerQuestion(question, given),
})
