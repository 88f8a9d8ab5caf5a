/** Where processes or threads that share a UDP port meet: a local stream socket that nobody but this user can reach. */
import cluster from 'node:cluster'
import { createHash } from 'node:crypto'
import { lstatSync, mkdirSync, readlinkSync, rmdirSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Millis } from '../base/environment.ts'

/** Ours: whoever founds a group is done long before. */
const LOCK_IS_STALE: Millis = 2000

/** What processes or threads must have in common to share a port. */
export interface GroupPlace {
  readonly addresses: readonly (string | undefined)[]
  readonly port: number
  readonly ipv6Only: boolean
  /** Each of them binds the port; else one does, for all. */
  readonly reusePort: boolean
}

/** Its path. */
export const meetingPlace = ({ addresses, port, ipv6Only, reusePort }: GroupPlace): string => {
  // The system lets any two processes of a user bind a port again: who does must find the others.
  const group = reusePort ? networkNamespace() : cluster.isWorker ? process.ppid : process.pid
  const text = JSON.stringify([group, addresses, port, ipv6Only])
  const name = createHash('sha256').update(text).digest('hex').slice(0, 24)
  return process.platform === 'win32' ? `\\\\.\\pipe\\ike-socket-${name}` : join(ownFolder(), name)
}

/** A port of one is not that of another. */
const networkNamespace = (): string => {
  try {
    return readlinkSync('/proc/self/ns/net')
  } catch {
    return ''
  }
}

/** Nobody else may look into it, so whoever is met there is of this user. */
const ownFolder = (): string => {
  const uid = process.getuid?.() ?? 0
  const folder = join(tmpdir(), `ike-socket-${uid}`)
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  const facts = lstatSync(folder)
  if (!facts.isDirectory() || facts.uid !== uid || (facts.mode & 0o077) !== 0) {
    throw new Error(`${folder} must be a folder of this user that nobody else may read`)
  }
  return folder
}

/** Only one at a time may found a group at that path. Returns what gives the lock back; undefined: another one has it. */
export const lockPlace = (path: string): (() => void) | undefined => {
  const lock = `${path}.lock`
  const take = (): boolean => {
    try {
      mkdirSync(lock)
      return true
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false
      throw error
    }
  }
  const giveBack = (): void => {
    try {
      rmdirSync(lock)
    } catch {
      // Another one has found it stale.
    }
  }
  if (take()) return giveBack
  const facts = lstatSync(lock, { throwIfNoEntry: false })
  if (facts === undefined || Date.now() - facts.mtimeMs < LOCK_IS_STALE) return undefined
  giveBack()
  return take() ? giveBack : undefined
}
