/** IP addresses as 4 or 16 octets, and their text (RFC 5952 for IPv6). */
import { getU16, putU16 } from './bytes.ts'

/** Reads an IPv4 or IPv6 address; `undefined` when the text is neither. A zone index is not accepted. */
export const parseAddress = (text: string): Uint8Array | undefined =>
  text.includes(':') ? parseIpv6(text) : parseIpv4(text)

const parseIpv4 = (text: string): Uint8Array | undefined => {
  const parts = text.split('.')
  if (parts.length !== 4) return undefined
  const octets = new Uint8Array(4)
  for (let i = 0; i < 4; i++) {
    const part = parts[i]!
    if (!/^(0|[1-9]\d{0,2})$/.test(part) || Number(part) > 255) return undefined
    octets[i] = Number(part)
  }
  return octets
}

const parseIpv6 = (text: string): Uint8Array | undefined => {
  if (text.length > 45) return undefined
  const halves = text.split('::')
  if (halves.length > 2) return undefined
  const head = parseGroups(halves[0]!, halves.length === 1)
  const tail = halves.length === 2 ? parseGroups(halves[1]!, true) : []
  if (head === undefined || tail === undefined) return undefined
  const given = head.length + tail.length
  if (halves.length === 1 ? given !== 8 : given > 7) return undefined
  const octets = new Uint8Array(16)
  head.forEach((group, i) => putU16(octets, 2 * i, group))
  tail.forEach((group, i) => putU16(octets, 2 * (8 - tail.length + i), group))
  return octets
}

const parseGroups = (text: string, last: boolean): number[] | undefined => {
  if (text === '') return []
  const groups: number[] = []
  const parts = text.split(':')
  for (let i = 0; i < parts.length; i++) {
    const part = parts[i]!
    if (last && i === parts.length - 1 && part.includes('.')) {
      const v4 = parseIpv4(part)
      if (v4 === undefined) return undefined
      groups.push(getU16(v4, 0), getU16(v4, 2))
    } else if (/^[0-9a-f]{1,4}$/i.test(part)) groups.push(parseInt(part, 16))
    else return undefined
  }
  return groups
}

export const formatAddress = (octets: Uint8Array): string => {
  if (octets.length === 4) return octets.join('.')
  if (octets.length !== 16) return ''
  const groups = Array.from({ length: 8 }, (_, i) => getU16(octets, 2 * i))
  let bestAt = -1
  let bestLength = 1
  for (let i = 0; i < 8; i++) {
    let length = 0
    while (i + length < 8 && groups[i + length] === 0) length++
    if (length > bestLength) {
      bestAt = i
      bestLength = length
    }
  }
  const hex = (part: number[]): string => part.map(group => group.toString(16)).join(':')
  if (bestAt < 0) return hex(groups)
  return `${hex(groups.slice(0, bestAt))}::${hex(groups.slice(bestAt + bestLength))}`
}
