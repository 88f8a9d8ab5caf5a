/** Where processes or threads that share a UDP port meet: a local stream socket that nobody but this user can reach. */
import cluster from 'node:cluster'
import { createHash, randomUUID } from 'node:crypto'
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Millis } from '../base/environment.ts'

/** Ours: founding a group takes far less. */
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

/** No other user has access to it, so every process found there belongs to this user. */
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

/**
 * Only one at a time may found a group at that path. Returns what gives the lock back; undefined: another one has it.
 *
 * The lock is a file whose name says since when it is held. A folder, which never goes, has had it from the start, and
 * the process that renames it has it: of several that find the same name, also that of an owner that died, only one can.
 */
export const lockPlace = (path: string): (() => void) | undefined => {
  const folder = `${path}.lock`
  const known = heldSince(folder)
  const now = Date.now()
  if (known === undefined || now - Number.parseInt(known) < LOCK_IS_STALE) return undefined
  const own = `${now}-${randomUUID()}`
  if (!renamed(folder, known, own)) return undefined
  // False: another one has found it stale.
  return () => void renamed(folder, own, FREE)
}

const FREE = '0'

/** The name of the lock; undefined: it is being renamed just now. */
const heldSince = (folder: string): string | undefined => {
  if (!existsSync(folder)) {
    const made = mkdtempSync(`${folder}-`)
    writeFileSync(join(made, FREE), '')
    try {
      // No folder that has something in it is replaced.
      renameSync(made, folder)
    } catch (error) {
      rmSync(made, { recursive: true })
      if (!existsSync(folder)) throw error
    }
  }
  return readdirSync(folder)[0]
}

const renamed = (folder: string, from: string, to: string): boolean => {
  try {
    renameSync(join(folder, from), join(folder, to))
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false
    throw error
  }
}

/** Which process has which mark in the group at that path, for the process that founds it again while members of the old one live. */
export class Claims {
  private readonly folder: string

  constructor(path: string) {
    this.folder = `${path}.marks`
  }

  /** By a process that lives. */
  isTaken(mark: number): boolean {
    try {
      const pid = Number(readFileSync(join(this.folder, String(mark)), 'utf8'))
      return pid > 0 && process.kill(pid, 0)
    } catch (error) {
      return (error as NodeJS.ErrnoException).code === 'EPERM'
    }
  }

  take(mark: number, pid: number): void {
    try {
      mkdirSync(this.folder, { recursive: true })
      writeFileSync(join(this.folder, String(mark)), String(pid))
    } catch {
      // Without room on the disk the next founder may draw it, which is unlikely.
    }
  }

  give(mark: number): void {
    rmSync(join(this.folder, String(mark)), { force: true })
  }
}
