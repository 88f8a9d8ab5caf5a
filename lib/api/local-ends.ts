/**
 * Inner addresses and ports that sockets and servers of this process use, so that `localAddress` and `localPort`
 * mean what they mean to bind(2).
 */
import { networkInterfaces } from 'node:os'
import { formatAddress, parseAddress } from '../base/address.ts'

/** Users of each port, by address; an empty text stands for every address. */
const ends = new Map<number, Map<string, number>>()

const EVERY = ''

/** Canonical text: two ways to write an address are one address. */
const keyOf = (address: string | Uint8Array | undefined): string => {
  const octets = typeof address === 'string' ? parseAddress(address.split('%')[0]!) : address
  return octets === undefined || octets.every(octet => octet === 0) ? EVERY : formatAddress(octets)
}

/** Notes one more user; the returned function takes it back, once. */
export const useLocalEnd = (
  address: string | Uint8Array | undefined,
  port: number,
): (() => void) => {
  const key = keyOf(address)
  const users = ends.get(port) ?? new Map<string, number>()
  ends.set(port, users)
  users.set(key, (users.get(key) ?? 0) + 1)
  let isOver = false
  return () => {
    if (isOver) return
    isOver = true
    const left = users.get(key)! - 1
    if (left > 0) users.set(key, left)
    else users.delete(key)
    if (users.size === 0) ends.delete(port)
  }
}

export const isLocalEndUsed = (address: string | undefined, port: number): boolean => {
  const users = ends.get(port)
  if (users === undefined) return false
  const key = keyOf(address)
  return key === EVERY || users.has(key) || users.has(EVERY)
}

/** Whether this host has that address. Every address of 127.0.0.0/8 is the host's. */
export const isOwnAddress = (address: string): boolean => {
  const key = keyOf(address)
  if (key === EVERY || key.startsWith('127.')) return true
  return Object.values(networkInterfaces()).some(list =>
    list?.some(({ address: own }) => keyOf(own) === key),
  )
}
