/**
 * EAP-MSCHAPv2 as the peer (draft-kamath-pppext-eap-mschapv2, RFC 2759): the authenticator's challenge is
 * answered, then its proof that it knows the password too is checked before anything is acknowledged.
 */
import { concat, EMPTY, equal, fromHex, getU16, putU16, utf8 } from '../../base/bytes.ts'
import { randomBytes, type Environment } from '../../base/environment.ts'
import { printable } from '../../base/errors.ts'
import type { Secret } from '../../base/secret.ts'
import {
  authenticatorResponse,
  CHALLENGE_LENGTH,
  challengeHash,
  challengeResponse,
  mschapMsk,
  ntPasswordHash,
} from './mschap-crypto.ts'

const OpCode = { Challenge: 1, Response: 2, Success: 3, Failure: 4, ChangePassword: 7 } as const

export type MethodStep =
  /** What to answer; with the master session key once the method has succeeded. */
  | { readonly kind: 'answer'; readonly data: Uint8Array; readonly msk?: Uint8Array }
  /** The method has failed, which is acknowledged. */
  | { readonly kind: 'refused'; readonly data: Uint8Array; readonly why: string }
  | { readonly kind: 'failed'; readonly why: string }

const failed = (why: string): MethodStep => ({ kind: 'failed', why })

/** Op-code, MS-CHAPv2-ID, MS-Length. */
const HEADER = 4
/** Peer challenge, eight octets reserved, NT-Response, flags. */
const RESPONSE_LENGTH = 49
const AUTHENTICATOR_RESPONSE = /^S=([0-9A-F]{40})(?: |$)/i
/** RFC 2759 §6 and what Windows adds. */
const ERRORS: ReadonlyMap<string, string> = new Map(
  Object.entries({
    646: 'the account may not be used at this hour',
    647: 'the account is disabled',
    648: 'the password has expired',
    649: 'the account may not dial in',
    691: 'wrong name or password',
    709: 'the password could not be changed',
  }),
)
/** Failure texts are read this far: E=, R=, a challenge, V= and a sentence. */
const TEXT_LIMIT = 512

interface Answered {
  readonly passwordHash: Uint8Array
  readonly challenge: Uint8Array
  readonly ntResponse: Uint8Array
}

export class MsChapV2 {
  private readonly identity: string
  private readonly password: Secret
  private readonly environment: Environment
  private answered: Answered | undefined
  private isOver = false

  constructor(identity: string, password: Secret, environment: Environment) {
    this.identity = identity
    this.password = password
    this.environment = environment
  }

  /** `data` follows the EAP type of a request. */
  handle(data: Uint8Array): MethodStep {
    if (this.isOver) return failed('EAP-MSCHAPv2 goes on after its end')
    if (data.length < HEADER || getU16(data, 2) !== data.length) {
      return failed('a malformed EAP-MSCHAPv2 message')
    }
    const body = data.subarray(HEADER)
    switch (data[0]) {
      case OpCode.Challenge:
        return this.handleChallenge(data[1]!, body)
      case OpCode.Success:
        return this.handleSuccess(body)
      case OpCode.Failure:
        return this.handleFailure(body)
      default:
        return failed(`an EAP-MSCHAPv2 message of unknown kind ${data[0]}`)
    }
  }

  private handleChallenge(id: number, body: Uint8Array): MethodStep {
    if (this.answered !== undefined) return failed('a second EAP-MSCHAPv2 challenge')
    if (body.length < 1 + CHALLENGE_LENGTH || body[0] !== CHALLENGE_LENGTH) {
      return failed('a malformed EAP-MSCHAPv2 challenge')
    }
    const peerChallenge = randomBytes(this.environment, CHALLENGE_LENGTH)
    const userName = this.identity.slice(this.identity.lastIndexOf('\\') + 1)
    const challenge = challengeHash(peerChallenge, body.subarray(1, 1 + CHALLENGE_LENGTH), userName)
    const passwordHash = ntPasswordHash(this.password.bytes)
    const ntResponse = challengeResponse(challenge, passwordHash)
    this.answered = { passwordHash, challenge, ntResponse }
    const answer = concat(
      Uint8Array.of(OpCode.Response, id, 0, 0, RESPONSE_LENGTH),
      peerChallenge,
      new Uint8Array(8),
      ntResponse,
      Uint8Array.of(0),
      utf8(this.identity),
    )
    putU16(answer, 2, answer.length)
    return { kind: 'answer', data: answer }
  }

  private handleSuccess(body: Uint8Array): MethodStep {
    const { answered } = this
    if (answered === undefined) return failed('EAP-MSCHAPv2 success without a challenge')
    this.isOver = true
    const digits = AUTHENTICATOR_RESPONSE.exec(latin1(body.subarray(0, 43)))?.[1]
    const { passwordHash, ntResponse, challenge } = answered
    const expected = authenticatorResponse(passwordHash, ntResponse, challenge)
    if (!equal(digits === undefined ? EMPTY : fromHex(digits), expected)) {
      return failed('the gateway could not prove that it knows the password')
    }
    const msk = mschapMsk(passwordHash, ntResponse)
    return { kind: 'answer', data: Uint8Array.of(OpCode.Success), msk }
  }

  /** There is no second password to try, whatever the message says about retrying. */
  private handleFailure(body: Uint8Array): MethodStep {
    this.isOver = true
    const text = latin1(body.subarray(0, TEXT_LIMIT))
    const code = /(?:^| )E=(\d{1,10})(?: |$)/.exec(text)?.[1]
    const at = text.search(/(?:^| )M=/)
    const message = at < 0 ? '' : text.slice(text.indexOf('M=', at) + 2)
    const reason = code === undefined ? undefined : (ERRORS.get(code) ?? `error ${code}`)
    const why = [reason ?? 'no reason is given', ...(message === '' ? [] : [printable(message)])]
    return { kind: 'refused', data: Uint8Array.of(OpCode.Failure), why: why.join(': ') }
  }

  wipe(): void {
    this.isOver = true
    this.answered?.passwordHash.fill(0)
    this.answered = undefined
  }
}

/** One character per octet; what is not printable is escaped later. */
const latin1 = (octets: Uint8Array): string => {
  let text = ''
  for (const octet of octets) text += String.fromCharCode(octet)
  return text
}
