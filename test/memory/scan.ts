/**
 * Looks through the memory of this process (Linux: /proc/self/mem) for octets that should be gone. It keeps what it
 * looks
 */
import { closeSync, existsSync, openSync, readFileSync, readSync } from 'node:fs'

export const canScan = existsSync('/proc/self/mem') && existsSync('/proc/self/maps')

const MASK = 0xa5
const CHUNK = 1 << 20
/** The beginning of a key is enough: parts of it are no better than the whole. */
const LONGEST = 32

/** What is looked for, in a form that a scan does not find. */
export type Masked = Uint8Array

export const masked = (octets: Uint8Array): Masked =>
  Uint8Array.from(octets.subarray(0, LONGEST), octet => octet ^ MASK)

/** Outside of V8's heap, which would move it and leave copies. */
const buffer = Buffer.from(new ArrayBuffer(CHUNK + LONGEST))

/** How often each lies in writable memory: one walk for all, which compares only where two octets are right. */
export const copiesOf = (wanted: readonly Masked[]): readonly number[] => {
  const counts = wanted.map(() => 0)
  const beginnings = new Map<number, number[]>()
  const isBeginning = new Uint8Array(1 << 16)
  for (const [i, [first, second]] of wanted.entries()) {
    const pair = (((first ?? 0) ^ MASK) << 8) | ((second ?? 0) ^ MASK)
    beginnings.set(pair, [...(beginnings.get(pair) ?? []), i])
    isBeginning[pair] = 1
  }
  /** Each place belongs to one piece, although pieces overlap. */
  const count = (length: number): void => {
    const end = Math.min(CHUNK, length - 1)
    for (let at = 0, pair = buffer[0]!; at < end; at++) {
      pair = ((pair << 8) | buffer[at + 1]!) & 0xffff
      if (isBeginning[pair] === 0) continue
      for (const i of beginnings.get(pair)!) if (isAt(wanted[i]!, at, length)) counts[i]!++
    }
  }
  const memory = openSync('/proc/self/mem', 'r')
  for (const line of readFileSync('/proc/self/maps', 'latin1').split('\n')) {
    const range = /^([0-9a-f]+)-([0-9a-f]+) rw/.exec(line)
    if (range === null) continue
    const end = parseInt(range[2]!, 16)
    for (let at = parseInt(range[1]!, 16); at < end; at += CHUNK) {
      const length = readAt(memory, at, Math.min(buffer.length, end - at))
      if (length === 0) break
      count(length)
      buffer.fill(0)
    }
  }
  closeSync(memory)
  return counts
}

const isAt = (wanted: Masked, at: number, length: number): boolean => {
  if (at + wanted.length > length) return false
  for (let i = 0; i < wanted.length; i++) {
    if ((buffer[at + i]! ^ MASK) !== wanted[i]) return false
  }
  return true
}

/** 0: it cannot be read, as what belongs to a device. */
const readAt = (memory: number, at: number, length: number): number => {
  try {
    return readSync(memory, buffer, 0, length, at)
  } catch {
    return 0
  }
}
