/** What the core asks the application, answered from the options that the program gave. */
import { X509Certificate } from 'node:crypto'
import type { PeerCertificate } from 'node:tls'
import { formatAddress } from '../base/address.ts'
import { OptionError } from '../base/errors.ts'
import type { Question } from '../core/events.ts'
import { formatIdentity } from '../identity/identity.ts'
import { EapTlsClient, parseEapTls } from '../node/eap-tls.ts'
import { fetchStatus } from '../node/fetch-status.ts'
import { parsePolicy, reader } from '../policy/options.ts'
import {
  AUTHORIZATION_OPTIONS,
  type AuthorizedPeer,
  type SecureServerOptions,
  type SecureSocketOptions,
} from './options.ts'

type Given = SecureSocketOptions & SecureServerOptions

/** TLS of logins under way, by the login. */
const logins = new WeakMap<object, EapTlsClient>()

/** Whatever a function of the program throws is a "no"; the words go with it where somebody reads them. */
export const answerQuestion = async (question: Question, given: Given): Promise<unknown> => {
  switch (question.kind) {
    case 'findSecret': {
      const { psk } = given
      return typeof psk === 'function'
        ? psk(formatIdentity(question.remote), formatIdentity(question.local))
        : undefined
    }
    case 'authorize':
      return authorize(question, given).catch((reason: unknown) => asError(reason))
    case 'sign': {
      const { algorithm, message } = question
      return given.sign?.({ algorithm: algorithm.name, hash: algorithm.hash, message })
    }
    case 'ocspResponse': {
      const { ocspResponse } = given
      return typeof ocspResponse === 'function' ? ocspResponse() : ocspResponse
    }
    case 'fetchStatus':
      return fetchStatus(question.wanted)
    case 'eap': {
      const { eap } = given
      if (eap?.method !== 'tls') return undefined
      const login = logins.get(question.conversation) ?? new EapTlsClient(parseEapTls(eap))
      logins.set(question.conversation, login)
      return login.handle(question.request)
    }
    default:
      return question satisfies never
  }
}

const asError = (reason: unknown): Error =>
  reason instanceof Error ? reason : new Error(String(reason))

const authorize = async (
  { peer, path }: Question & { kind: 'authorize' },
  given: Given,
): Promise<unknown> => {
  const leaf = peer.certificates[0]
  const certificate = leaf && new X509Certificate(leaf)
  if (given.checkServerIdentity !== undefined) {
    const host = given.servername || given.gateway || given.host || 'localhost'
    const legacy = (certificate?.toLegacyObject() ?? {}) as PeerCertificate
    return given.checkServerIdentity(host, legacy) ?? true
  }
  if (given.authorize === undefined) return true
  const seen: AuthorizedPeer = {
    id: peer.identityText,
    address: formatAddress(path.remoteAddress),
    port: path.remotePort,
    authentication: peer.authentication,
    certificate,
  }
  const answer = await given.authorize(seen)
  if (typeof answer !== 'object' || answer === null) return answer
  if (Array.isArray(answer)) {
    throw new OptionError('authorize', answer, 'answered with true, false or an object of options')
  }
  reader({ ...answer }, 'authorize').refuseUnknown(AUTHORIZATION_OPTIONS)
  return { policy: parsePolicy({ ...given, ...answer }) }
}
