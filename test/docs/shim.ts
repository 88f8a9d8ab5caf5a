/** `ike-socket` for blocks of the documentation: the package, but for the UDP port and the address of gateways. */
import * as real from '../../lib/index.ts'
import { gatewayOf, world } from './world.ts'

export * from '../../lib/index.ts'

const own = <T extends object>(options: T): T =>
  'endpoint' in options || world === undefined ? options : { ...options, ikePort: world.own }

export const createSecureServer: typeof real.createSecureServer = (options, listener) =>
  real.createSecureServer(own(options), listener)

const towards = <T extends { port?: unknown; gateway?: string | undefined }>(options: T): T => {
  if (world === undefined) return options
  const isOwn = world.inner.has(Number(options.port))
  const { gateway } = options
  return {
    ...options,
    ikePort: isOwn ? world.own : world.other,
    ...(gateway === undefined ? {} : { gateway: gatewayOf(gateway) }),
  }
}

export const createSecureSocket = (
  options: real.SecureSocketOptions,
  listener?: () => void,
): real.SecureSocket => real.createSecureSocket(towards(options), listener)

const noted = <T extends { close(done: () => void): unknown }>(made: T): T => {
  world?.made.push(made)
  return made
}

export const createEndpoint: typeof real.createEndpoint = options => {
  const endpoint = noted(real.createEndpoint(own(options)))
  const connect = endpoint.connect.bind(endpoint) as (
    options: real.EndpointConnectOptions,
    listener?: () => void,
  ) => real.SecureSocket
  return Object.assign(endpoint, {
    connect: (to: real.EndpointConnectOptions, listener?: () => void) =>
      connect(towards(to), listener),
  })
}

export const createSecureDatagram: typeof real.createSecureDatagram = (options, listener) =>
  noted(real.createSecureDatagram(own(options), listener))
