/** Why a certificate is not believed: for programs a code, for people which certificate failed which check. */
import { printable } from '../base/errors.ts'
import { describeCertificate, type Certificate } from './certificate.ts'

export type FailureCode =
  | 'MALFORMED'
  | 'TOO_LARGE'
  | 'TOO_MUCH_WORK'
  | 'UNKNOWN_ISSUER'
  | 'EXPIRED'
  | 'NOT_YET_VALID'
  | 'WEAK_KEY'
  | 'WEAK_ALGORITHM'
  | 'BAD_SIGNATURE'
  | 'NOT_A_CA'
  | 'PATH_LENGTH'
  | 'KEY_USAGE'
  | 'EXTENDED_KEY_USAGE'
  | 'CRITICAL_EXTENSION'
  | 'NAME_CONSTRAINTS'
  | 'POLICY'
  | 'PROFILE'
  | 'REVOKED'
  | 'REVOCATION_UNKNOWN'
  | 'IDENTITY'

export interface Failure {
  readonly code: FailureCode
  /** Escaped and bounded: `'CN=host, O=Example'`; empty when it could not even be read. */
  readonly certificate: string
  /** A sentence. */
  readonly message: string
}

/** `problem` continues "The certificate … "; texts of a certificate within it are escaped here. */
export const failure = (code: FailureCode, certificate: Certificate, problem: string): Failure => {
  const described = describeCertificate(certificate)
  return {
    code,
    certificate: described,
    message: `The certificate ${described} ${escape(problem)}`,
  }
}

export const isFailure = (value: object): value is Failure => 'code' in value

/** `2026-11-25T16:00:00Z`, and words for what is no time that a calendar has. */
export const printTime = (time: number): string =>
  Math.abs(time) <= LAST_TIME ? `${new Date(time).toISOString().slice(0, -5)}Z` : 'no valid time'

/** The greatest that `Date` can hold (ECMA-262 §21.4.1.1). */
const LAST_TIME = 8.64e15

/** Without the quotes, which belong around names alone. */
const escape = (text: string): string => {
  const quoted = printable(text, 300)
  return quoted.slice(1, quoted.lastIndexOf("'")).replaceAll("\\'", "'")
}
