/**
 * Where an endpoint is, in words that are the same for the process that is started in its stead and for no replica
 * elsewhere: quick crash detection needs that (RFC 6290 §9.2).
 */
import { readFileSync } from 'node:fs'
import { networkInterfaces } from 'node:os'
import { utf8 } from '../base/bytes.ts'

const WILDCARDS: ReadonlySet<string> = new Set(['0.0.0.0', '::'])
/** systemd's name for the machine, which others do not know. */
const MACHINE_ID = '/etc/machine-id'

/** `address` and `port`: those that are bound. */
export const placeOf = (address: string, port: number): Uint8Array =>
  utf8([machineId(), WILDCARDS.has(address) ? ownAddresses() : address, port].join('\n'))

/** Of IPv6 only where there is nothing else, since those may change by themselves (RFC 8981). */
const ownAddresses = (): string => {
  const outer = Object.values(networkInterfaces()).flatMap(list =>
    (list ?? []).filter(({ internal }) => !internal),
  )
  const ofFamily = (family: string): string[] =>
    outer.filter(one => one.family === family).map(({ address }) => address)
  const v4 = ofFamily('IPv4')
  return (v4.length > 0 ? v4 : ofFamily('IPv6')).sort().join(' ')
}

let knownId: string | undefined

const machineId = (): string => (knownId ??= readMachineId())

const readMachineId = (): string => {
  try {
    return readFileSync(MACHINE_ID, 'utf8').trim()
  } catch {
    return ''
  }
}
