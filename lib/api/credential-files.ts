/** Credentials in files: they are read where options are read, and again when they change. */
import { readFileSync, realpathSync, statSync, watch, type FSWatcher } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { OptionError, printable, readingOption } from '../base/errors.ts'

/** In the place of a value: what the file holds. */
export interface FileReference {
  /** A path, from the working directory. */
  readonly file: string
}

type Given = Readonly<Record<string, unknown>>

/** Options whose values, or members of arrays, may be files. */
const FILE_OPTIONS = [
  'psk',
  'cert',
  'key',
  'passphrase',
  'pfx',
  'ca',
  'crl',
  'peerKeys',
  'ocspResponse',
]
/** Of these, tables of identities have values that may be files. */
const TABLES: ReadonlySet<string> = new Set(['psk', 'peerKeys'])

const isReference = (value: unknown): value is { readonly file: unknown } =>
  isPlain(value) && Object.keys(value).join() === 'file'

const isPlain = (value: unknown): value is Given => {
  if (typeof value !== 'object' || value === null) return false
  const prototype: unknown = Object.getPrototypeOf(value)
  return prototype === Object.prototype || prototype === null
}

/** Every reference in those options, by what stands in its place; the same object where there is none. */
const replaceFiles = (
  options: Given,
  replace: (option: string, file: string) => unknown,
): Given => {
  let replaced: Record<string, unknown> | undefined
  const read = (option: string, value: unknown, mayBeTable: boolean): unknown => {
    if (isReference(value)) {
      if (typeof value.file === 'string' && value.file !== '') return replace(option, value.file)
      throw new OptionError(`${option}.file`, value.file, 'a path')
    }
    if (Array.isArray(value)) {
      const parts = value.map((part, i) => read(`${option}[${i}]`, part, false))
      return parts.some((part, i) => part !== value[i]) ? parts : value
    }
    if (!mayBeTable || !isPlain(value)) return value
    const entries = Object.entries(value)
    const parts = entries.map(([name, part]) => [
      name,
      read(`${option}[${printable(name, 40)}]`, part, false),
    ])
    return parts.some(([, part], i) => part !== entries[i]![1]) ? Object.fromEntries(parts) : value
  }
  for (const option of FILE_OPTIONS) {
    const value = Object.hasOwn(options, option) ? options[option] : undefined
    if (typeof value !== 'object' || value === null) continue
    const whole = readingOption(option, () => read(option, value, TABLES.has(option)))
    if (whole !== value) replaced = { ...(replaced ?? options), [option]: whole }
  }
  return replaced ?? options
}

/** Options with what their files hold. */
export const readFiles = (options: Given): Given =>
  replaceFiles(options, (option, file) => {
    try {
      const octets = readFileSync(file)
      return new Uint8Array(octets.buffer, octets.byteOffset, octets.length)
    } catch (error) {
      throw OptionError.saying(option, `"${option}": ${(error as Error).message}`)
    }
  })

/** The files that options name. */
export const filesOf = (options: Given): readonly string[] => {
  const files: string[] = []
  replaceFiles(options, (_option, file) => files.push(resolve(file)))
  return files
}

/** Ours: a writer that needs longer between two steps is waited for by the next change. */
const SETTLE = 100
/** Ours: a folder that is gone tells nobody when it is there again, so it is looked for. */
const ABSENT = 1000

/** The folders of files and of what they are links to, each with what tells it from another one of that name. */
const foldersOf = (files: readonly string[]): Map<string, string | undefined> => {
  const folders = new Map<string, string | undefined>()
  const add = (folder: string): void => {
    const facts = statSync(folder, { throwIfNoEntry: false })
    folders.set(folder, facts && `${facts.dev}:${facts.ino}`)
  }
  for (const file of files) {
    add(dirname(file))
    try {
      add(dirname(realpathSync(file)))
    } catch {
      // It is gone for now.
    }
  }
  return folders
}

/** Looks at the folders of files, so that one that is replaced by another is noticed as well as one that is written. */
export class CredentialWatcher {
  private readonly adopt: () => readonly string[]
  private readonly tell: (changed: readonly string[]) => void
  private files: readonly string[] = []
  private readonly watched = new Map<string, { watcher: FSWatcher; identity: string }>()
  private timer: NodeJS.Timeout | undefined
  private hasWarned = false

  /** `adopt` reads the files and returns which options have changed; what it throws leaves everything as it was. */
  constructor(adopt: () => readonly string[], tell: (changed: readonly string[]) => void) {
    this.adopt = adopt
    this.tell = tell
  }

  /** Watches these, and no others any more. */
  start(files: readonly string[]): void {
    this.files = files
    try {
      this.watchFolders()
    } catch (error) {
      this.warn(error)
    }
  }

  private watchFolders(): void {
    const folders = foldersOf(this.files)
    for (const [folder, { watcher, identity }] of this.watched) {
      if (folders.get(folder) === identity) continue
      watcher.close()
      this.watched.delete(folder)
    }
    for (const [folder, identity] of folders) {
      if (identity === undefined || this.watched.has(folder)) continue
      const watcher = watch(folder, { persistent: false }, () => this.lookAfter(SETTLE))
      watcher.on('error', error => this.warn(error))
      this.watched.set(folder, { watcher, identity })
    }
    if ([...folders.values()].includes(undefined)) this.lookAfter(ABSENT)
  }

  private lookAfter(delay: number): void {
    clearTimeout(this.timer)
    this.timer = setTimeout(() => this.look(), delay)
    this.timer.unref()
  }

  private look(): void {
    let changed: readonly string[]
    try {
      // First, so that what changes after the reading is noticed.
      this.watchFolders()
      changed = this.adopt()
    } catch (error) {
      return this.warn(error)
    }
    this.hasWarned = false
    if (changed.length > 0) this.tell(changed)
  }

  /** Once until it is right again. */
  private warn(error: unknown): void {
    if (this.hasWarned) return
    this.hasWarned = true
    const why = error instanceof Error ? error.message : String(error)
    process.emitWarning(`Credentials stay as they are: ${why}`, { code: 'IKE_CREDENTIAL_FILES' })
  }

  stop(): void {
    clearTimeout(this.timer)
    for (const { watcher } of this.watched.values()) watcher.close()
    this.watched.clear()
  }
}
