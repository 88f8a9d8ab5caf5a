/** The configuration payload, both halves: addresses, netmask and DNS servers (RFC 7296 §2.19, §3.15). */
import { EMPTY } from '../base/bytes.ts'
import { find } from '../wire/message.ts'
import { notify } from '../wire/notify.ts'
import type { ConfigurationAttribute, Payload } from '../wire/payloads.ts'
import { CpAttribute, CpType, NotifyType } from '../wire/registry.ts'
import type { AuthContext } from './auth-steps.ts'
import type { Newcomer } from './exchange.ts'

export interface Configuration {
  readonly addresses: readonly Uint8Array[]
  readonly dns: readonly Uint8Array[]
  readonly netmask: Uint8Array | undefined
}

const REQUESTED = [
  CpAttribute.InternalIp4Address,
  CpAttribute.InternalIp4Netmask,
  CpAttribute.InternalIp4Dns,
  CpAttribute.InternalIp6Address,
  CpAttribute.InternalIp6Dns,
]

/** `held`: addresses that an SA before this one gave us; a client that reauthenticates wants to keep them. */
export const configurationRequest = (held: readonly Uint8Array[]): Payload => ({
  kind: 'cp',
  type: CpType.Request,
  attributes: REQUESTED.map(type => {
    const address = held.find(({ length }) => type === ADDRESS_TYPES[length])
    return { type, value: address === undefined ? EMPTY : addressValue(address) }
  }),
})

const ADDRESS_TYPES: Readonly<Record<number, number>> = {
  4: CpAttribute.InternalIp4Address,
  16: CpAttribute.InternalIp6Address,
}

/** §3.15.1: an IPv6 address has its prefix length behind it. */
const addressValue = (address: Uint8Array): Uint8Array =>
  address.length === 4 ? address : Uint8Array.of(...address, 128)

const UNCONFIGURED: Configuration = { addresses: [], dns: [], netmask: undefined }

export const readConfiguration = (payloads: readonly Payload[]): Configuration => {
  const cp = find(payloads, 'cp')
  if (cp?.type !== CpType.Reply) return UNCONFIGURED
  const values = (type: number, lengths: readonly number[]): Uint8Array[] =>
    cp.attributes
      .filter(attribute => attribute.type === type && lengths.includes(attribute.value.length))
      .map(({ value }) => value)
  return {
    addresses: [
      ...values(CpAttribute.InternalIp4Address, [4]),
      // RFC 7296 §3.15.1: sixteen octets of address and one of prefix length.
      ...values(CpAttribute.InternalIp6Address, [16, 17]).map(value => value.subarray(0, 16)),
    ],
    dns: [...values(CpAttribute.InternalIp4Dns, [4]), ...values(CpAttribute.InternalIp6Dns, [16])],
    netmask: values(CpAttribute.InternalIp4Netmask, [4])[0],
  }
}

/** A responder's answer to a request for addresses. */
export interface Assignment {
  readonly addresses: readonly Uint8Array[]
  readonly payloads: readonly Payload[]
  /** There was none left, so there is no Child SA either (§3.15.4). */
  readonly failed: boolean
}

const NOTHING: Assignment = { addresses: [], payloads: [], failed: false }

export const assignAddresses = (
  sa: AuthContext,
  payloads: readonly Payload[],
  { principal, sa: next, replaced, isRestarted }: Newcomer,
): Assignment => {
  const cp = find(payloads, 'cp')
  const { pool, policy } = sa.config
  if (cp?.type !== CpType.Request || pool === undefined) return NOTHING
  const asked = (type: number): boolean => cp.attributes.some(attribute => attribute.type === type)
  const attributes: ConfigurationAttribute[] = []
  const addresses: Uint8Array[] = []
  const own = sa.config.addressesOf(principal, next, replaced)
  let missing = false
  for (const length of [4, 16] as const) {
    const type = ADDRESS_TYPES[length]!
    const wanted = cp.attributes.find(attribute => attribute.type === type)?.value
    // A family that the pool does not have is passed over (§3.15.4).
    if (wanted === undefined || !pool.has(length)) continue
    const lease = pool.assign(length, {
      tenant: principal,
      wanted: wanted.length >= length ? wanted.subarray(0, length) : undefined,
      own: own.filter(address => address.length === length),
      restarted: isRestarted,
    })
    if (lease === undefined) {
      missing = true
      continue
    }
    addresses.push(lease.address)
    attributes.push({ type, value: addressValue(lease.address) })
    if (lease.netmask !== undefined && asked(CpAttribute.InternalIp4Netmask))
      attributes.push({ type: CpAttribute.InternalIp4Netmask, value: lease.netmask })
  }
  if (addresses.length === 0) {
    return missing
      ? { addresses, payloads: [notify(NotifyType.InternalAddressFailure)], failed: true }
      : NOTHING
  }
  for (const value of policy.dns) {
    const type = value.length === 4 ? CpAttribute.InternalIp4Dns : CpAttribute.InternalIp6Dns
    attributes.push({ type, value })
  }
  return {
    addresses,
    payloads: [{ kind: 'cp', type: CpType.Reply, attributes }],
    failed: false,
  }
}
