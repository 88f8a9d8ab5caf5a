/**
 * Looks through the memory of this process (Linux: /proc/self/mem) for octets that should be gone. It keeps what it
 * looks for masked, and unmasks it in one place, which is left out; what it reads is overwritten.
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
const pattern = new Uint8Array(new ArrayBuffer(LONGEST))
const buffer = Buffer.from(new ArrayBuffer(CHUNK + LONGEST))

/** How often each lies in writable memory. */
export const copiesOf = (wanted: readonly Masked[]): readonly number[] => {
  const counts = wanted.map(() => 0)
  const memory = openSync('/proc/self/mem', 'r')
  for (const line of readFileSync('/proc/self/maps', 'latin1').split('\n')) {
    const range = /^([0-9a-f]+)-([0-9a-f]+) rw/.exec(line)
    if (range === null) continue
    const end = parseInt(range[2]!, 16)
    for (let at = parseInt(range[1]!, 16); at < end; at += CHUNK) {
      const length = readAt(memory, at, Math.min(buffer.length, end - at))
      if (length === 0) break
      // Each place belongs to one piece, although pieces overlap.
      for (const [i, each] of wanted.entries()) counts[i]! += occurrences(each, length)
      buffer.fill(0)
    }
  }
  closeSync(memory)
  return counts
}

/** 0: it cannot be read, as what belongs to a device. */
const readAt = (memory: number, at: number, length: number): number => {
  try {
    return readSync(memory, buffer, 0, length, at)
  } catch {
    return 0
  }
}

const occurrences = (wanted: Masked, length: number): number => {
  for (let i = 0; i < wanted.length; i++) pattern[i] = wanted[i]! ^ MASK
  const octets = pattern.subarray(0, wanted.length)
  let count = 0
  for (let at = buffer.indexOf(octets); at >= 0; at = buffer.indexOf(octets, at + 1)) {
    if (at < CHUNK && at + wanted.length <= length) count++
  }
  pattern.fill(0)
  return count
}
