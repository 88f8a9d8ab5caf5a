/**
 * EAP as the peer (RFC 3748, RFC 4137 §4) with one method. Requests come authenticated inside IKE_AUTH (RFC 7296
 * §2.16); what does not belong there ends the authentication, since IKE cannot wait for another packet.
 */
import type { Environment } from '../../base/environment.ts'
import { OptionError, withoutContent } from '../../base/errors.ts'
import { copy, utf8 } from '../../base/bytes.ts'
import { Secret } from '../../base/secret.ts'
import {
  EapCode,
  eapResponse,
  EapType,
  eapTypeName,
  readEapPacket,
  type EapPacket,
} from '../../wire/eap.ts'
import { MSK_LENGTH } from './mschap-crypto.ts'
import { MsChapV2 } from './mschapv2.ts'

export type EapSettings =
  /** `only` is never true: it does not prove the gateway well enough to stand alone (RFC 5998 §4). */
  | {
      readonly method: 'mschapv2'
      readonly identity: string
      readonly password: Secret
      readonly only?: false
    }
  /** TLS itself is run by the application: see `EapStep`. `only`: the gateway needs no other proof. */
  | { readonly method: 'tls'; readonly identity: string; readonly only?: boolean }

export type EapStep =
  | { readonly kind: 'respond'; readonly packet: Uint8Array }
  /** The application runs this method: the answer comes by `resume`. */
  | { readonly kind: 'external'; readonly request: Uint8Array }
  /** The gateway is convinced and so are we; the key is the caller's to wipe. */
  | { readonly kind: 'success'; readonly msk: Uint8Array }
  /** Words for our side; what the gateway wrote is escaped. */
  | { readonly kind: 'failed'; readonly why: string }

export type EapAnswer =
  | {
      readonly packet: Uint8Array
      readonly msk?: Uint8Array | undefined
      readonly why?: undefined
    }
  /** The method has failed; the packet, if there is one, says so to the gateway. */
  | { readonly why: string; readonly packet?: Uint8Array | undefined; readonly msk?: undefined }

/** Requests of one authentication. A chain of certificates in fragments takes a dozen. */
const ROUND_LIMIT = 64

export class EapPeer {
  private readonly settings: EapSettings
  private readonly type: number
  private readonly mschap: MsChapV2 | undefined
  /** `waiting`: `resume` comes next. */
  private state: 'begun' | 'in method' | 'waiting' | 'finished' | 'over' = 'begun'
  private msk: Uint8Array | undefined
  /** Why the gateway may refuse us. */
  private refusal: string | undefined
  /** Why we have refused the gateway, which is still to hear of it. */
  private ownRefusal: string | undefined
  private rounds = 0
  private requestId = 0

  constructor(settings: EapSettings, environment: Environment) {
    this.settings = settings
    this.type = settings.method === 'tls' ? EapType.Tls : EapType.MsChapV2
    this.mschap =
      settings.method === 'mschapv2'
        ? new MsChapV2(settings.identity, settings.password, environment)
        : undefined
  }

  /** The content of an EAP payload. */
  handle(bytes: Uint8Array): EapStep {
    if (this.state === 'waiting' || this.state === 'over') return this.fail('EAP after its end')
    if (this.ownRefusal !== undefined) return this.fail(this.ownRefusal)
    const packet = readEapPacket(bytes)
    if (packet === undefined) return this.fail('the gateway sent a malformed EAP packet')
    switch (packet.code) {
      case EapCode.Request:
        if (++this.rounds > ROUND_LIMIT)
          return this.fail('the gateway sends EAP requests endlessly')
        return this.handleRequest(packet, bytes)
      case EapCode.Success:
        return this.handleSuccess()
      case EapCode.Failure:
        return this.fail(`the gateway refused us by EAP${this.refusal ? `: ${this.refusal}` : ''}`)
      default:
        return this.fail('the gateway sent an EAP response')
    }
  }

  private handleRequest(packet: EapPacket, bytes: Uint8Array): EapStep {
    const { id, type } = packet
    if (type === EapType.Notification) {
      // RFC 3748 §5.2: acknowledged at any time before the method's end. Its text is shown to nobody.
      if (this.state === 'finished') return this.fail('an EAP request after the method has ended')
      return { kind: 'respond', packet: eapResponse(id, EapType.Notification) }
    }
    if (type === this.type) return this.runMethod(packet, bytes)
    // RFC 3748 §2.1: one method, and once it has begun nothing else.
    if (this.state !== 'begun') {
      return this.fail(`the gateway changed to EAP type ${eapTypeName(type)} half-way`)
    }
    if (type === EapType.Identity) {
      const identity = eapResponse(id, EapType.Identity, utf8(this.settings.identity))
      return { kind: 'respond', packet: identity }
    }
    if (type === EapType.Nak) return this.fail('the gateway sent an EAP request of type Nak')
    // RFC 3748 §5.3.1: the type that we would have.
    this.refusal = `it wanted ${eapTypeName(type)}, we ${eapTypeName(this.type)}`
    return { kind: 'respond', packet: eapResponse(id, EapType.Nak, Uint8Array.of(this.type)) }
  }

  private runMethod({ id, data }: EapPacket, bytes: Uint8Array): EapStep {
    if (this.state === 'finished') return this.fail('an EAP request after the method has ended')
    this.refusal = undefined
    if (this.mschap === undefined) {
      this.state = 'waiting'
      this.requestId = id
      return { kind: 'external', request: copy(bytes) }
    }
    this.state = 'in method'
    const step = this.mschap.handle(data)
    if (step.kind === 'failed') return this.fail(step.why)
    if (step.kind === 'refused') this.refusal = step.why
    else if (step.msk !== undefined) this.finish(step.msk)
    return { kind: 'respond', packet: eapResponse(id, this.type, step.data) }
  }

  /** What the application's method answers; undefined when it gave up. */
  resume(answer: EapAnswer | undefined): EapStep {
    if (this.state !== 'waiting') return this.fail('an answer that nobody waits for')
    if (answer?.packet === undefined) return this.fail(answer?.why ?? 'the EAP method gave up')
    const packet = readEapPacket(answer.packet)
    const isOurs =
      packet?.code === EapCode.Response && packet.type === this.type && packet.id === this.requestId
    if (!isOurs) return this.fail('the EAP method answered with another packet')
    this.state = 'in method'
    if (answer.why !== undefined) this.ownRefusal = answer.why
    else if (answer.msk !== undefined) {
      if (answer.msk.length !== MSK_LENGTH) return this.fail('the EAP method gave no key')
      this.finish(copy(answer.msk))
    }
    return { kind: 'respond', packet: answer.packet }
  }

  private finish(msk: Uint8Array): void {
    this.msk = msk
    this.state = 'finished'
  }

  /** Only a method that ran to its end, and gave a key, makes this true: anyone can write four octets. */
  private handleSuccess(): EapStep {
    const { msk } = this
    if (this.state !== 'finished' || msk === undefined) {
      return this.fail('the gateway claims EAP success before the method has ended')
    }
    this.msk = undefined
    this.state = 'over'
    this.mschap?.wipe()
    return { kind: 'success', msk }
  }

  private fail(why: string): EapStep {
    this.wipe()
    return { kind: 'failed', why }
  }

  wipe(): void {
    this.state = 'over'
    this.msk?.fill(0)
    this.msk = undefined
    this.mschap?.wipe()
  }
}

// --- options ---

const MEMBERS: Readonly<Record<EapSettings['method'], readonly string[]>> = {
  mschapv2: ['method', 'identity', 'password'],
  tls: ['method', 'identity', 'cert', 'key', 'passphrase', 'ca', 'crl', 'servername', 'only'],
}

/** RFC 7542 §2.2: no user name is longer. */
const IDENTITY_LIMIT = 253
/** RFC 2759 §4: in UTF-16 units. */
const PASSWORD_LIMIT = 256

/** Reads the option `eap`. What is TLS's own in it is left to `node/eap-tls.ts`. */
export const parseEap = (value: unknown): EapSettings => {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new OptionError(
      'eap',
      withoutContent(value),
      'an object such as { method, identity, password }',
    )
  }
  const own = (name: string): unknown =>
    Object.hasOwn(value, name) ? (value as Record<string, unknown>)[name] : undefined
  const method = own('method')
  if (method !== 'mschapv2' && method !== 'tls') {
    throw new OptionError('eap.method', withoutContent(method), "'mschapv2' or 'tls'")
  }
  const accepted = MEMBERS[method]
  for (const name of Object.keys(value)) {
    if (!accepted.includes(name)) throw OptionError.unknown(`eap.${name}`, undefined, accepted)
  }
  const identity = own('identity')
  if (typeof identity !== 'string' || identity === '' || utf8(identity).length > IDENTITY_LIMIT) {
    throw new OptionError('eap.identity', identity, 'a user name of 1 to 253 octets')
  }
  if (method === 'tls') {
    const only = own('only') ?? false
    if (typeof only !== 'boolean') throw new OptionError('eap.only', only, 'true or false')
    // Or everyone with a certificate of that CA would be the gateway.
    if (only && own('servername') === undefined) {
      throw new OptionError('eap.servername', undefined, 'given with "eap.only"')
    }
    return { method, identity, only }
  }
  const password = own('password')
  if (typeof password !== 'string' || password === '' || password.length > PASSWORD_LIMIT) {
    throw new OptionError(
      'eap.password',
      withoutContent(password),
      'a string of 1 to 256 characters',
    )
  }
  return { method, identity, password: Secret.adopt(utf8(password)) }
}
