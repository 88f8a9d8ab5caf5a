/** The configuration payload, both halves: addresses, netmask and DNS servers (RFC 7296 §2.19, §3.15). */
import { EMPTY } from '../base/bytes.ts'
import type { Identity } from '../identity/identity.ts'
import { find } from '../wire/message.ts'
import type { ConfigurationAttribute, Payload } from '../wire/payloads.ts'
import { CpAttribute, CpType } from '../wire/registry.ts'
import type { ExchangeContext } from './exchange.ts'

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

export const configurationRequest: Payload = {
  kind: 'cp',
  type: CpType.Request,
  attributes: REQUESTED.map(type => ({ type, value: EMPTY })),
}

export const readConfiguration = (payloads: readonly Payload[]): Configuration => {
  const cp = find(payloads, 'cp')
  const values = (type: number, lengths: readonly number[]): Uint8Array[] =>
    (cp?.type === CpType.Reply ? cp.attributes : [])
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

export const assignAddresses = (
  sa: ExchangeContext,
  payloads: readonly Payload[],
  remote: Identity,
): readonly Uint8Array[] => {
  const cp = find(payloads, 'cp')
  if (cp?.type !== CpType.Request || sa.config.assignAddress === undefined) return []
  const asked = (type: number): boolean => cp.attributes.some(attribute => attribute.type === type)
  const addresses: Uint8Array[] = []
  for (const [type, family] of [
    [CpAttribute.InternalIp4Address, 4],
    [CpAttribute.InternalIp6Address, 6],
  ] as const) {
    const address = asked(type) ? sa.config.assignAddress(remote, family) : undefined
    if (address !== undefined) addresses.push(address)
  }
  return addresses
}

export const configurationReply = (assigned: readonly Uint8Array[]): readonly Payload[] => {
  if (assigned.length === 0) return []
  const attributes = assigned.map((address): ConfigurationAttribute =>
    address.length === 4
      ? { type: CpAttribute.InternalIp4Address, value: address }
      : { type: CpAttribute.InternalIp6Address, value: Uint8Array.of(...address, 128) },
  )
  return [{ kind: 'cp', type: CpType.Reply, attributes }]
}
