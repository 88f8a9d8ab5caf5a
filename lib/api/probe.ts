/** What an IKE peer says before anything is proved: for diagnosis alone. */
import { X509Certificate } from 'node:crypto'
import type { Millis } from '../base/environment.ts'
import { probePort, type Reach } from '../node/probe.ts'
import { parseConnect, type SecureSocketOptions } from './options.ts'
import type { Session } from './session.ts'
import { keysIn, optionsOf, securityTowards } from './secure-context.ts'
import { SHORT_PSK } from '../identity/pre-shared-key.ts'
import type { ShownCertificate } from '../identity/trust.ts'

export type { Reach } from '../node/probe.ts'
export type { ShownCertificate }
export { SHORT_PSK }
export { interfaceMtu } from '../node/interface-mtu.ts'

/** All that can be spoken, the weak too: a peer that answers only to these wants one of them. */
export const ALL_IKE: readonly string[] = [
  'aes256gcm16-aes192gcm16-aes128gcm16-chacha20poly1305-prfsha256-prfsha384-prfsha512-prfsha1',
  'aes256-aes192-aes128-sha256-sha384-sha512-sha1-prfsha256-prfsha384-prfsha512-prfsha1',
].map(text => `${text}-x25519-ecp256-ecp384-ecp521-x448-modp2048-modp3072-modp4096-modp1024`)
export const ALL_ESP: readonly string[] = [
  'aes256gcm16-aes192gcm16-aes128gcm16-chacha20poly1305',
  'aes256-aes192-aes128-sha256-sha384-sha512-sha1',
]

/** A certificate of the options "cert" or "ca". */
export interface KnownCertificate {
  readonly isOurs: boolean
  readonly certificate: X509Certificate
}

/** Of PEM the certificates, one after the other; else DER. */
const certificatesIn = (value: unknown): readonly X509Certificate[] => {
  const octets = typeof value === 'string' ? Buffer.from(value) : value
  if (!(octets instanceof Uint8Array)) return []
  const blocks = Buffer.from(octets)
    .toString('latin1')
    .match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g)
  return (blocks ?? [octets]).map(block => new X509Certificate(block))
}

/** Those that the options hold as certificates, files included. */
export const certificatesOf = (options: SecureSocketOptions): readonly KnownCertificate[] => {
  const { given } = parseConnect({ ...options, port: options.port ?? 1 }, true)
  const read = (value: unknown, isOurs: boolean): readonly KnownCertificate[] =>
    (Array.isArray(value) ? value : [value])
      .flatMap(certificatesIn)
      .map(certificate => ({ isOurs, certificate }))
  return [...read(given['cert'], true), ...read(given['ca'], false)]
}

/** Octets of the shortest pre-shared key, where that can be found by trying (RFC 7296 §2.15); else undefined. */
export const guessableKey = (options: SecureSocketOptions): number | undefined => {
  const { given } = parseConnect({ ...options, port: options.port ?? 1 }, true)
  const lengths = keysIn(given['psk']).map(key => Buffer.byteLength(key))
  const least = Math.min(...lengths)
  return least < SHORT_PSK ? least : undefined
}

/** Whether an IP packet of so many octets gets to the peer, and whether one gets back; undefined: it cannot be asked. */
export const tryPacket = async (
  session: Session,
  octets: number,
  way: 'there' | 'back',
): Promise<boolean | undefined> => {
  const sizes = { there: 0, back: 0, [way]: octets }
  const passage = await session.tryPackets(sizes).catch(() => undefined)
  if (passage === undefined || (way === 'back' && !passage.isFilled)) return undefined
  return passage.isWhole
}

/** Asks at one UDP port with the proposals of these options. */
export const probeGateway = (
  options: SecureSocketOptions,
  address: string,
  port: number,
  timeout: Millis,
): Promise<Reach> => {
  const settings = parseConnect({ ...options, port: options.port ?? 1 }, true)
  const { policy, credentials } = securityTowards(settings.context!, optionsOf(settings))
  return probePort({ policy, credentials, address, port, timeout })
}
