/** Unprotected messages, and which payloads each message must and may hold (RFC 7296 §1.2-1.4, appendix C). */
import type { Payload, PayloadKind } from './payloads.ts'
import { IKE_HEADER_LENGTH, writeIkeHeader, type HeaderFacts } from './ike-header.ts'
import { writeChain } from './payload-chain.ts'
import { ExchangeType, notifyName } from './registry.ts'

export const writeMessage = (facts: HeaderFacts, payloads: readonly Payload[]): Uint8Array => {
  const chain = writeChain(payloads)
  const message = new Uint8Array(IKE_HEADER_LENGTH + chain.bytes.length)
  writeIkeHeader(message, facts, chain.first, message.length)
  message.set(chain.bytes, IKE_HEADER_LENGTH)
  return message
}

/** How many of a kind a message may hold at most; kinds not named here: one. */
const AT_MOST: Partial<Record<PayloadKind, number>> = {
  notify: 40,
  delete: 20,
  vendor: 20,
  cert: 32,
  certreq: 20,
  cp: 1,
}

/** Kinds that an exchange's messages must hold, unless they carry an error instead. */
const REQUIRED: Readonly<Record<number, readonly PayloadKind[]>> = {
  [ExchangeType.IkeSaInit]: ['sa', 'ke', 'nonce'],
  [ExchangeType.CreateChildSa]: ['sa', 'nonce'],
}

/** Too many of a kind: INVALID_SYNTAX whatever else the message says. */
export const hasExcess = (payloads: readonly Payload[]): boolean => {
  const counts = new Map<PayloadKind, number>()
  for (const { kind } of payloads) {
    const count = (counts.get(kind) ?? 0) + 1
    if (count > (AT_MOST[kind] ?? 1)) return true
    counts.set(kind, count)
  }
  return false
}

/** A payload that must be there is not. */
export const lacksRequired = (exchange: number, payloads: readonly Payload[]): boolean =>
  (REQUIRED[exchange] ?? []).some(kind => !payloads.some(payload => payload.kind === kind))

/** The one payload of a kind, or undefined. */
export const find = <K extends PayloadKind>(
  payloads: readonly Payload[],
  kind: K,
): Extract<Payload, { kind: K }> | undefined =>
  payloads.find((payload): payload is Extract<Payload, { kind: K }> => payload.kind === kind)

/** What a message holds, for people: `SA KE NONCE COOKIE`. */
export const describePayloads = (payloads: readonly Payload[]): string =>
  payloads
    .slice(0, 40)
    .map(payload => (payload.kind === 'notify' ? notifyName(payload.type) : payload.kind))
    .join(' ')
    .toUpperCase()
