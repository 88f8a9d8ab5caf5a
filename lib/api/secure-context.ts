/**
 * Credentials and policy of IKE, read once: what a program makes by `createSecureContext`, and what sockets and servers
 * with equal plain options share, so that certificates and tables of keys are not read for each of them.
 */
import { EventEmitter } from 'node:events'
import { ffiProblem } from '../base/ffi.ts'
import { OptionError, ownProperties } from '../base/errors.ts'
import { boolean, reader } from '../base/option-table.ts'
import {
  CREDENTIAL_OPTIONS,
  credentialsTowards,
  parseCredentials,
  PEER_OPTIONS,
  type Credentials,
} from '../identity/credentials.ts'
import { SHORT_PSK } from '../identity/pre-shared-key.ts'
import { parseEapTls } from '../node/eap-tls.ts'
import { nativeAeads } from '../node/native-aeads.ts'
import { parsePolicy, POLICY_OPTIONS, type PeerPolicy } from '../policy/options.ts'
import { CredentialWatcher, filesOf, readFiles } from './credential-files.ts'
import { fingerprint } from './fingerprint.ts'

type Given = Readonly<Record<string, unknown>>

/** What IKE works with. */
export interface Security {
  readonly policy: PeerPolicy
  readonly credentials: Credentials
}

/** Options that have been read; equal ones have an equal `print`. */
export interface ParsedContext extends Security {
  readonly given: Given
  readonly print: string
}

/** What a context holds; all of it but `PEER_OPTIONS` can stand nowhere beside one. */
const CONTEXT_OPTIONS: readonly string[] = [...POLICY_OPTIONS, ...CREDENTIAL_OPTIONS, 'keyLog']
const PER_PEER: ReadonlySet<string> = new Set(PEER_OPTIONS)
/** Those that make contexts differ. */
const SHARED_OPTIONS = CONTEXT_OPTIONS.filter(name => !PER_PEER.has(name))

const OF_CONTEXT: ReadonlySet<string> = new Set(SHARED_OPTIONS)

/** That option is part of a context. */
export const isOfContext = (name: string): boolean => OF_CONTEXT.has(name)

/** What was given, to be looked at option by option. */
export const optionsOf = ({ given }: { readonly given: object }): Given => given as Given

const contents = new WeakMap<object, ParsedContext>()
/** Of endpoints, as they are now. */
const endpointContents = new WeakMap<object, ParsedContext>()

/** Events of a context, with the arguments of their listeners. */
export interface SecureContextEvents {
  /** With `watch`: files of credentials have changed, and these options with them. */
  credentials: [changed: readonly string[]]
}

type Heard = (changed: readonly string[]) => void

/** Servers and endpoints that use a context whose files are watched. */
const followers = new WeakMap<object, Set<Heard>>()

/** Credentials and policy, read once by `createSecureContext`. It shows nothing of them. */
export class SecureContext extends EventEmitter<SecureContextEvents> {
  readonly #watcher: CredentialWatcher | undefined

  constructor(options: object) {
    super()
    if (typeof options !== 'object' || options === null) {
      throw new OptionError('options', options, 'an object', 'ERR_INVALID_ARG_TYPE')
    }
    const { watch, ...own } = ownProperties('options', options) as Given
    const isWatched = reader({ watch })('watch', boolean, false)
    this.#read(own)
    if (!isWatched) return
    const heard = new Set<Heard>()
    followers.set(this, heard)
    this.#watcher = new CredentialWatcher(
      () => this.#read(own),
      changed => {
        for (const follow of [...heard]) follow(changed)
        this.emit('credentials', changed)
      },
    )
    this.#watcher.start(filesOf(own))
  }

  /** Returns the names of the options that have changed. */
  #read(own: Given): readonly string[] {
    const given = readFiles(own)
    reader(given).refuseUnknown(CONTEXT_OPTIONS)
    const before = contents.get(this)
    contents.set(this, parse(given, printOf(given)))
    return before === undefined ? [] : changedOptions(before.given, given)
  }

  /** With `watch`: its files are watched no longer. */
  close(): void {
    this.#watcher?.stop()
  }
}

/** Hears when a context, if that is one, has read its files again; the returned function ends it. */
export const followContext = (context: unknown, heard: Heard): (() => void) => {
  const others =
    typeof context === 'object' && context !== null ? followers.get(context) : undefined
  others?.add(heard)
  return () => void others?.delete(heard)
}

/** An endpoint has that context from now on: it can stand in the place of one. */
export const giveContext = (endpoint: object, context: ParsedContext): void =>
  void endpointContents.set(endpoint, context)

/** What an option that stands in the place of others holds, and what makes one. */
const HOLDERS = [
  { name: 'endpoint', held: endpointContents, wanted: 'what createEndpoint() returns' },
  { name: 'secureContext', held: contents, wanted: 'what createSecureContext() returns' },
] as const

/** Options with those of their `secureContext` or `endpoint` too. */
export const expandContext = (options: Given): Given => {
  for (const { name, held, wanted } of HOLDERS) {
    const holder = options[name]
    if (holder === undefined) continue
    const context = heldBy(held, holder)
    if (context === undefined) {
      throw new OptionError(name, holder, wanted, 'ERR_INVALID_ARG_TYPE')
    }
    const others = name === 'endpoint' ? ['secureContext', ...SHARED_OPTIONS] : SHARED_OPTIONS
    const twice = others.find(other => own(options, other) !== undefined)
    if (twice !== undefined) {
      throw OptionError.saying(twice, `"${twice}" cannot be combined with "${name}"`)
    }
    return { ...contextPart(context.given), ...options }
  }
  return options
}

/** The context alone: the port and the host of its maker are not those of other sockets. */
const contextPart = (options: Given): Given =>
  Object.fromEntries(Object.entries(options).filter(([name]) => CONTEXT_OPTIONS.includes(name)))

const own = (options: Given, name: string): unknown =>
  Object.hasOwn(options, name) ? options[name] : undefined

const heldBy = (held: WeakMap<object, ParsedContext>, holder: unknown): ParsedContext | undefined =>
  typeof holder === 'object' && holder !== null ? held.get(holder) : undefined

/**
 * The context of these options, parsed unless one with equal options is in use. `expanded`: by `expandContext`; `before`:
 * of the options that these were made of, so that what has not changed is not even compared octet by octet.
 */
export const contextOf = (
  options: Given,
  expanded: Given,
  before: ParsedContext | undefined,
): ParsedContext => {
  const { endpoint, secureContext } = options
  const made = heldBy(endpointContents, endpoint) ?? heldBy(contents, secureContext)
  if (made !== undefined) return made
  if (
    before !== undefined &&
    SHARED_OPTIONS.every(name => own(before.given, name) === own(expanded, name))
  ) {
    return before
  }
  const print = printOf(expanded)
  const known = parsed.get(print)?.deref()
  if (known !== undefined) return known
  const context = parse(expanded, print)
  parsed.set(print, new WeakRef(context))
  collected.register(context, print)
  return context
}

/** Of plain options. Held weakly, so that keys do not stay for longer than somebody uses them. */
const parsed = new Map<string, WeakRef<ParsedContext>>()
const collected = new FinalizationRegistry<string>(print => {
  if (parsed.get(print)?.deref() === undefined) parsed.delete(print)
})

const printOf = (options: Given): string => fingerprint(options, SHARED_OPTIONS)

/** What distinguishes peers, or servers, under one context. */
export const peerPrint = (options: Given): string => fingerprint(options, PEER_OPTIONS)

/** The names of the options in which these differ. */
export const changedOptions = (before: Given, after: Given): readonly string[] =>
  CONTEXT_OPTIONS.filter(name => fingerprint(before, [name]) !== fingerprint(after, [name]))

/**
 * The same in every process or thread with equal options, as far as they can be compared: of functions and objects of
 * classes only that they are there. `authorize` is each server's own.
 */
export const portablePrint = (options: Given): string =>
  fingerprint(options, [...SHARED_OPTIONS, 'remoteId'], true)

const parse = (options: Given, print: string): ParsedContext => {
  const policy = parsePolicy(options, nativeAeads)
  const credentials = parseCredentials(options)
  if (credentials.eap?.method === 'tls') parseEapTls(options['eap'] as Given)
  warnAboutKeys(options['psk'])
  const problem = policy.accelerate === 'auto' ? ffiProblem() : undefined
  if (problem !== undefined) {
    warn({ code: 'IKE_NOT_ACCELERATED' }, `Nothing is accelerated: 'accelerate' works ${problem}`)
  }
  return { given: options, print, policy, credentials }
}

/** A context towards one peer; `peerName`: the host that a client speaks to. */
export const securityTowards = (
  { policy, credentials }: ParsedContext,
  options: Given,
  peerName?: string,
): Security => ({ policy, credentials: credentialsTowards(credentials, options, peerName) })

const warned = new Set<string>()

/** Each is said once in a process. */
const warn = (kind: { readonly code: string }, message: string): void => {
  if (warned.has(kind.code)) return
  warned.add(kind.code)
  process.emitWarning(message, kind)
}

/** Keys that work and should not, or that differ from what was meant. */
const warnAboutKeys = (psk: unknown): void => {
  for (const key of keysIn(psk)) {
    const last = typeof key === 'string' ? key.charCodeAt(key.length - 1) : key.at(-1)
    if (last === 0x0a || last === 0x0d) {
      warn(
        { code: 'IKE_PSK_LINE_BREAK' },
        'A pre-shared key ends in a line break, as files do: it is part of the key, so remove it unless the peer has it too',
      )
    }
    if (key.length > 0 && key.length < SHORT_PSK) {
      warn(
        { code: 'IKE_SHORT_PSK' },
        `A pre-shared key of ${key.length} octets can be found by trying (RFC 7296 section 2.15); use ${SHORT_PSK} random octets or more`,
      )
    }
  }
}

/** Pre-shared keys as they were given; those of a function are not known before it is asked. */
export const keysIn = (psk: unknown): readonly (string | Uint8Array)[] =>
  (isTable(psk) ? Object.values(psk) : [psk])
    .flat()
    .filter(key => typeof key === 'string' || key instanceof Uint8Array)

const isTable = (psk: unknown): psk is Readonly<Record<string, unknown>> =>
  typeof psk === 'object' && psk !== null && !(psk instanceof Uint8Array)
