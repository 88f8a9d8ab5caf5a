/** What the core asks the application, answered from the options that the program gave. */
import { X509Certificate } from 'node:crypto'
import type { PeerCertificate } from 'node:tls'
import { formatAddress } from '../base/address.ts'
import { OptionError, ownProperties } from '../base/errors.ts'
import type { Answer, AuthorizeAnswer, Question } from '../core/events.ts'
import { MOST_KEYS } from '../identity/pre-shared-key.ts'
import { identityText } from '../identity/identity.ts'
import { nextUpdateOf } from '../identity/trust.ts'
import { EapTlsClient, parseEapTls } from '../node/eap-tls.ts'
import { fetchStatus } from '../node/fetch-status.ts'
import { reader } from '../base/option-table.ts'
import { nativeAeads } from '../node/native-aeads.ts'
import { parsePolicy } from '../policy/options.ts'
import {
  AUTHORIZATION_OPTIONS,
  type AuthorizedPeer,
  type SecureServerOptions,
  type SecureSocketOptions,
} from './options.ts'

/** Options of the end that is asked. */
export type Given = SecureSocketOptions & SecureServerOptions

/** TLS of logins under way, by the login. */
const logins = new WeakMap<object, EapTlsClient>()

/**
 * Whatever a function of the program throws is a "no"; the words go with it where somebody reads them. So is
 * an answer of a wrong type, which a program in JavaScript may give.
 */
export const answerQuestion = async (question: Question, options: Given): Promise<Answer> => {
  switch (question.kind) {
    case 'findSecret': {
      const { psk } = options
      if (typeof psk !== 'function') return {}
      const found = await psk(identityText(question.remote), identityText(question.local))
      return { findSecret: Array.isArray(found) ? keysOf(found) : keyOf(found) }
    }
    case 'authorize':
      return { authorize: await askAuthorization(question, options) }
    case 'sign': {
      const { algorithm, message } = question
      const { name, hash } = algorithm
      return { sign: octets(await options.sign?.({ algorithm: name, hash, message })) }
    }
    case 'ocspResponse': {
      const { ocspResponse } = options
      const found = typeof ocspResponse === 'function' ? await ocspResponse() : ocspResponse
      return { ocspResponse: octets(found) }
    }
    case 'fetchStatus':
      return {
        fetchStatus: await fetchStatus(question.wanted, {
          allowed: Array.isArray(options.fetchRevocation) ? options.fetchRevocation : [],
          nextUpdate: nextUpdateOf,
        }),
      }
    case 'eap': {
      const { eap } = options
      if (eap?.method !== 'tls') return {}
      const login = logins.get(question.conversation) ?? new EapTlsClient(parseEapTls(eap))
      logins.set(question.conversation, login)
      return { eap: await login.handle(question.request) }
    }
    default:
      return question satisfies never
  }
}

const keyOf = (value: unknown): string | Uint8Array | undefined =>
  typeof value === 'string' && value !== '' ? value : octets(value)

/** Nothing where one of them is no key. */
const keysOf = (values: readonly unknown[]): readonly (string | Uint8Array)[] | undefined => {
  const keys = values.map(keyOf)
  const isWhole = keys.every(key => key !== undefined && key.length > 0)
  return isWhole && keys.length <= MOST_KEYS ? (keys as (string | Uint8Array)[]) : undefined
}

const octets = (value: unknown): Uint8Array | undefined =>
  value instanceof Uint8Array ? value : undefined

const asError = (reason: unknown): Error =>
  reason instanceof Error ? reason : new Error(String(reason))

/** What a throw says is for our own side. */
export const askAuthorization = (
  question: Question & { kind: 'authorize' },
  options: Given,
): Promise<AuthorizeAnswer | undefined> => authorize(question, options).catch(asError)

const authorize = async (
  { peer, path }: Question & { kind: 'authorize' },
  options: Given,
): Promise<AuthorizeAnswer | undefined> => {
  if (options.checkServerIdentity === undefined && options.authorize === undefined) return true
  const leaf = peer.certificates[0]
  const certificate = leaf && new X509Certificate(leaf)
  if (options.checkServerIdentity !== undefined) {
    const host = options.servername || options.gateway || options.host || 'localhost'
    const legacy = (certificate?.toLegacyObject() ?? {}) as PeerCertificate
    return options.checkServerIdentity(host, legacy) ?? true
  }
  if (options.authorize === undefined) return true
  const seen: AuthorizedPeer = {
    id: peer.identityText,
    address: formatAddress(path.remoteAddress),
    port: path.remotePort,
    authentication: peer.authentication,
    certificate,
  }
  const answer = await options.authorize(seen)
  if (typeof answer !== 'object' || answer === null) return answer === true
  if (Array.isArray(answer)) {
    throw new OptionError('authorize', answer, 'answered with true, false or an object of options')
  }
  const own = ownProperties('authorize', answer)
  reader(own, 'authorize').refuseUnknown(AUTHORIZATION_OPTIONS)
  return { policy: parsePolicy({ ...options, ...own }, nativeAeads) }
}
