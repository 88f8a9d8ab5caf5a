/**
 * EAP-TLS as the peer (RFC 5216; RFC 9190 for TLS 1.3): node:tls over a stream that is not a network but the data
 * of EAP packets, in fragments both ways.
 *
 * node:tls judges a server's certificate when the handshake is over. In TLS 1.3 that is before anything of ours
 * is sent; in TLS 1.2 our certificate has been sent then, which the gateway sees anyway, and IKE has
 * authenticated that one before.
 */
import { constants, createPrivateKey, KeyObject, X509Certificate } from 'node:crypto'
import { Duplex } from 'node:stream'
import {
  checkServerIdentity,
  connect,
  createSecureContext as createTlsContext,
  type SecureContext,
  type TLSSocket,
} from 'node:tls'
import { concat, EMPTY, getU32, putU32 } from '../base/bytes.ts'
import { OptionError, printable, withoutContent } from '../base/errors.ts'
import { EapCode, eapResponse, EapType, readEapPacket } from '../wire/eap.ts'

/** RFC 5216 §3.1. */
const Flag = { Length: 0x80, More: 0x40, Start: 0x20 } as const
/** The limit that RFC 5216 §2.1.5 proposes. */
const MESSAGE_LIMIT = 65_536
/** RFC 3748 §3.1: every lower layer carries 1020 octets; header, type, flags and length are ten of them. */
const FRAGMENT = 1010
/** The record type (RFC 8446 §5.1). */
const TLS_ALERT = 21
const KEY_LENGTH = 128
const MSK_LENGTH = 64

/** What the option `eap` says of TLS. */
export interface EapTlsSettings {
  readonly context: SecureContext
  /** A name that the server's certificate must have; undefined: any, if only it is of `ca`. */
  readonly servername: string | undefined
}

/** What `EapPeer.resume` takes. */
export type EapTlsAnswer =
  | {
      readonly packet: Uint8Array
      readonly msk?: Uint8Array | undefined
      readonly why?: undefined
    }
  /** TLS has failed; the packet, if there is one, tells the server by an alert. */
  | { readonly why: string; readonly packet?: Uint8Array | undefined; readonly msk?: undefined }

/** What node:tls takes for a connection. */
class Wire extends Duplex {
  readonly #onWritten: (octets: Uint8Array) => void

  constructor(onWritten: (octets: Uint8Array) => void) {
    super()
    this.#onWritten = onWritten
  }

  override _read(): void {}

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.#onWritten(new Uint8Array(chunk))
    done()
  }
}

export class EapTlsClient {
  private readonly settings: EapTlsSettings
  private readonly wire: Wire
  private socket: TLSSocket | undefined
  /** What TLS has written since the last packet. */
  private readonly written: Uint8Array[] = []
  /** Counts whatever TLS has done. */
  private progress = 0
  private isSecure = false
  private isConfirmed = false
  private problem: string | undefined
  private incoming: Uint8Array[] = []
  private incomingLength = 0
  private announced: number | undefined
  private outgoing: Uint8Array = EMPTY
  private sent = 0

  constructor(settings: EapTlsSettings) {
    this.settings = settings
    this.wire = new Wire(octets => {
      this.progress++
      this.written.push(octets)
    })
    this.wire.on('error', () => {})
  }

  /** One EAP request of type 13 in, its response out. One at a time. */
  async handle(request: Uint8Array): Promise<EapTlsAnswer> {
    const packet = readEapPacket(request)
    if (packet?.code !== EapCode.Request || packet.type !== EapType.Tls) return MALFORMED
    const { id, data } = packet
    const flags = data[0]
    if (flags === undefined) return MALFORMED
    if (this.problem !== undefined) return { why: this.problem }
    if ((flags & Flag.Start) !== 0) {
      if (this.socket !== undefined) return { why: 'the gateway began EAP-TLS twice' }
      this.start()
      return this.answer(id)
    }
    if (this.socket === undefined) return { why: 'the gateway did not begin EAP-TLS' }
    if (this.sent < this.outgoing.length) {
      // §2.1.5: an empty request asks for the next fragment.
      return data.length === 1 ? { packet: this.nextFragment(id) } : MALFORMED
    }
    if (!this.receive(flags, data)) return MALFORMED
    if ((flags & Flag.More) !== 0) return { packet: empty(id) }
    for (const fragment of this.incoming.splice(0)) this.wire.push(fragment)
    this.incomingLength = 0
    this.announced = undefined
    return this.answer(id)
  }

  /** Keeps a fragment; false when the lengths do not fit. */
  private receive(flags: number, data: Uint8Array): boolean {
    const hasLength = (flags & Flag.Length) !== 0
    if (hasLength && data.length < 5) return false
    const length = hasLength ? getU32(data, 1) : this.announced
    const isFirst = this.incoming.length === 0
    const isLast = (flags & Flag.More) === 0
    // The total is said in the first of several fragments, and may be said again.
    if (isFirst && !isLast && !hasLength) return false
    if (!isFirst && length !== this.announced) return false
    this.announced = length
    const fragment = data.subarray(hasLength ? 5 : 1)
    if (fragment.length === 0 && !isLast) return false
    this.incoming.push(fragment.slice())
    this.incomingLength += fragment.length
    const limit = Math.min(length ?? MESSAGE_LIMIT, MESSAGE_LIMIT)
    if (this.incomingLength > limit || (length ?? 0) > MESSAGE_LIMIT) return false
    return !isLast || length === undefined || this.incomingLength === length
  }

  private start(): void {
    const { context, servername } = this.settings
    const socket = connect({
      socket: this.wire,
      secureContext: context,
      // Whether the chain ends in `ca` is checked always (`rejectUnauthorized`), a name where one is given.
      rejectUnauthorized: true,
      checkServerIdentity: (_host, certificate) =>
        servername === undefined ? undefined : checkServerIdentity(servername, certificate),
      ...(servername === undefined ? {} : { servername }),
    })
    this.socket = socket
    socket.disableRenegotiation()
    socket.on('secureConnect', () => {
      this.progress++
      this.isSecure = true
    })
    socket.on('data', (octets: Buffer) => {
      this.progress++
      // RFC 9190 §2.5: one octet of zero says that the server is satisfied; there is no other data.
      if (octets.length === 1 && octets[0] === 0 && !this.isConfirmed) this.isConfirmed = true
      else this.fail('the gateway sent data through EAP-TLS')
    })
    socket.on('error', (error: Error & { reason?: unknown }) => {
      // OpenSSL's sentence without the place in its source.
      const reason = typeof error.reason === 'string' ? error.reason : error.message
      this.fail(`EAP-TLS: ${printable(reason, 300)}`)
    })
    socket.on('end', () => this.fail('the gateway ended EAP-TLS'))
    socket.on('close', () => this.fail('EAP-TLS has ended'))
  }

  private fail(problem: string): void {
    this.progress++
    this.problem ??= problem
  }

  private async answer(id: number): Promise<EapTlsAnswer> {
    await this.settle()
    this.outgoing = concat(...this.written.splice(0))
    this.sent = 0
    if (this.outgoing.length > MESSAGE_LIMIT) this.fail('our own certificates are too long')
    const { problem } = this
    if (problem !== undefined) {
      // RFC 9190 §2.1.3: the server hears of it. What is no alert is a flight with our certificate in it,
      // written before node:tls judged the server's: it is not sent.
      const isAlert = this.outgoing[0] === TLS_ALERT && this.outgoing.length <= FRAGMENT
      const packet = isAlert ? this.nextFragment(id) : empty(id)
      this.outgoing = EMPTY
      return { why: problem, packet }
    }
    if (this.outgoing.length > 0) return { packet: this.nextFragment(id) }
    return { packet: empty(id), msk: this.key() }
  }

  /** The key, once both ends know that TLS is finished: RFC 5216 §2.3, RFC 9190 §2.3. */
  private key(): Uint8Array | undefined {
    const { socket } = this
    if (socket === undefined || !this.isSecure) return undefined
    const isTls13 = socket.getProtocol() === 'TLSv1.3'
    if (isTls13 && !this.isConfirmed) return undefined
    const material = isTls13
      ? socket.exportKeyingMaterial(
          KEY_LENGTH,
          'EXPORTER_EAP_TLS_Key_Material',
          Buffer.of(EapType.Tls),
        )
      : // RFC 5705 makes this RFC 5216's PRF when there is no context, which the types do not know.
        (socket.exportKeyingMaterial as (length: number, label: string) => Buffer).call(
          socket,
          KEY_LENGTH,
          'client EAP encryption',
        )
    const msk = new Uint8Array(material.subarray(0, MSK_LENGTH))
    material.fill(0)
    return msk
  }

  /**
   * Waits until TLS has done with what it got. It computes at once, but its octets pass through streams,
   * which take some turns of the event loop; and no event says that nothing will come.
   */
  private async settle(): Promise<void> {
    let seen = -1
    for (let quiet = 0; quiet < QUIET_TURNS; quiet++) {
      if (seen !== this.progress) quiet = 0
      seen = this.progress
      await new Promise(resolve => setImmediate(resolve))
    }
  }

  private nextFragment(id: number): Uint8Array {
    const { outgoing } = this
    const fragment = outgoing.subarray(this.sent, this.sent + FRAGMENT)
    // RFC 9190 §2.1.9: no length in a message of one fragment.
    const hasLength = this.sent === 0 && fragment.length < outgoing.length
    this.sent += fragment.length
    const head = new Uint8Array(hasLength ? 5 : 1)
    head[0] = (hasLength ? Flag.Length : 0) | (this.sent < outgoing.length ? Flag.More : 0)
    if (hasLength) putU32(head, 1, outgoing.length)
    return eapResponse(id, EapType.Tls, concat(head, fragment))
  }

  destroy(): void {
    this.fail('EAP-TLS was given up')
    this.socket?.destroy()
    this.wire.destroy()
  }
}

const MALFORMED: EapTlsAnswer = { why: 'the gateway sent a malformed EAP-TLS packet' }
const QUIET_TURNS = 8

const empty = (id: number): Uint8Array => eapResponse(id, EapType.Tls, Uint8Array.of(0))

// --- options ---

type Option = Readonly<Record<string, unknown>>

/** Reads what belongs to TLS in `eap: { method: 'tls', … }`, in the forms that `tls` takes, and DER. */
export const parseEapTls = (value: Option): EapTlsSettings => {
  const own = (name: string): unknown => (Object.hasOwn(value, name) ? value[name] : undefined)
  const cert = certificates('eap.cert', own('cert'))
  const ca = certificates('eap.ca', own('ca'))
  const key = privateKey(own('key'), own('passphrase'))
  if (!new X509Certificate(cert[0]!).checkPrivateKey(key)) {
    throw OptionError.saying('eap.key', '"eap.key" is not the private key of "eap.cert"')
  }
  const servername = own('servername')
  if (servername !== undefined && (typeof servername !== 'string' || servername === '')) {
    throw new OptionError('eap.servername', servername, 'a non-empty string')
  }
  const crl = own('crl')
  try {
    const context = createTlsContext({
      minVersion: 'TLSv1.2',
      // Servers without RFC 5746, as strongSwan's TLS 1.2, are taken: what that RFC prevents is that somebody's
      // data goes before ours, and here no data goes at all, and the key is of one handshake.
      secureOptions: constants.SSL_OP_LEGACY_SERVER_CONNECT,
      cert: cert.join('\n'),
      key: key.export({ type: 'pkcs8', format: 'pem' }),
      ca: [...ca],
      ...(crl === undefined ? {} : { crl: crl as string }),
    })
    return { context, servername }
  } catch (error) {
    // Certificates and key were read already.
    const reason = printable(error instanceof Error ? error.message : String(error))
    throw new OptionError(
      'eap.crl',
      withoutContent(crl),
      `a CRL, or an array of them, in PEM: ${reason}`,
    )
  }
}

/** In PEM. A text may hold several, and is left as it is. */
const certificates = (option: string, oneOrMore: unknown): readonly string[] => {
  const values: readonly unknown[] =
    Array.isArray(oneOrMore) && oneOrMore.length > 0 ? oneOrMore : [oneOrMore]
  return values.map(value => {
    try {
      if (value instanceof X509Certificate) return value.toString()
      const certificate = new X509Certificate(value as string)
      const text = typeof value === 'string' ? value : Buffer.from(value as Uint8Array).toString()
      return text.includes('-----BEGIN') ? text : certificate.toString()
    } catch {
      throw new OptionError(
        option,
        withoutContent(value),
        'a certificate in PEM or DER, or an array of them',
      )
    }
  })
}

const privateKey = (value: unknown, passphrase: unknown): KeyObject => {
  if (value instanceof KeyObject && value.type === 'private') return value
  try {
    if (typeof value !== 'string' && !(value instanceof Uint8Array)) throw new TypeError('no key')
    const text = typeof value === 'string' ? value : Buffer.from(value).toString('latin1')
    const phrase = passphrase === undefined ? {} : { passphrase: passphrase as string }
    return text.includes('-----BEGIN')
      ? createPrivateKey({ key: text, ...phrase })
      : createPrivateKey({
          key: Buffer.from(text, 'latin1'),
          format: 'der',
          type: 'pkcs8',
          ...phrase,
        })
  } catch {
    throw new OptionError(
      'eap.key',
      withoutContent(value),
      'a private key in PEM, PKCS #8 or as KeyObject; with "eap.passphrase" if it is encrypted',
    )
  }
}
