/**
 * Credentials and policy of a program that says nothing of them in its calls: given once to `configure`, or
 * read from the JSON file that `IKE_SOCKET_CONFIG` names, when the first module that needs them is loaded.
 */
import { readFileSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { OptionError, ownProperties } from '../base/errors.ts'
import { CREDENTIAL_OPTIONS } from '../identity/credentials.ts'
import { parseJson } from '../base/json.ts'
import { reader } from '../base/option-table.ts'
import { POLICY_OPTIONS } from '../policy/options.ts'
import {
  checkDefaults,
  type IkeOptions,
  type SecureServerOptions,
  type SecureSocketOptions,
} from './options.ts'

/** Options that hold for every socket and server of `ike-socket/net` and `ike-socket/http`. */
export type Configuration = IkeOptions &
  Partial<
    Pick<SecureSocketOptions, 'gateway' | 'checkServerIdentity' | 'eap' | 'virtualAddress'> &
      Pick<SecureServerOptions, 'authorize' | 'addressPool' | 'dns' | 'control' | 'reusePort'>
  > & { remoteId?: string | undefined; encrypted?: boolean | undefined }

const NAMES: readonly string[] = [
  ...POLICY_OPTIONS,
  ...CREDENTIAL_OPTIONS,
  'ikePort',
  'reusePort',
  'gateway',
  'encrypted',
  'keyLog',
  'control',
  'secureContext',
]

let current: Readonly<Record<string, unknown>> = {}

const variables = new Set<string>()

/** Those that the configuration has read secrets from. */
export const configurationVariables = (): readonly string[] => [...variables]

/** What `configure` or the file said. */
export const configuration = (): Readonly<Record<string, unknown>> => current

/**
 * Sets the defaults of `ike-socket/net` and `ike-socket/http` for sockets and servers that are made from now
 * on. An option that does not exist is an `OptionError`; each option's own faults come with the first use.
 */
export const configure = (options: Configuration): void => {
  if (typeof options !== 'object' || options === null || Array.isArray(options)) {
    throw new OptionError('options', options, 'an object', 'ERR_INVALID_ARG_TYPE')
  }
  const given = ownProperties('options', options)
  reader(given).refuseUnknown(NAMES)
  current = given
}

/** Names the file in front of what is wrong in it, so that the program does not start without saying why. */
class ConfigurationError extends Error {
  readonly code = 'ERR_IKE_CONFIG'

  constructor(named: string, file: string, why: string, cause: unknown) {
    super(`${named}: ${file}: ${why}`, { cause })
    this.name = 'ConfigurationError'
  }
}

/** `{ "file": path }` is what the file holds, `{ "env": name }` what the variable holds. */
const isReference = (value: unknown): value is { file: string } | { env: string } => {
  if (typeof value !== 'object' || value === null) return false
  const [name, ...more] = Object.keys(value)
  return more.length === 0 && (name === 'file' || name === 'env')
}

const readNamed = (name: string, file: string): Uint8Array => {
  try {
    return readFileSync(file)
  } catch (error) {
    throw OptionError.saying(name, `"${name}": ${(error as Error).message}`)
  }
}

const readReference = (name: string, value: unknown, folder: string): unknown => {
  if (Array.isArray(value))
    return value.map((part, i) => readReference(`${name}[${i}]`, part, folder))
  if (isReference(value)) {
    const [[kind, place]] = Object.entries(value) as [[string, unknown]]
    if (typeof place !== 'string' || place === '') {
      throw new OptionError(`${name}.${kind}`, place, 'a non-empty string')
    }
    if (kind === 'file') return readNamed(`${name}.file`, resolve(folder, place))
    const found = Object.hasOwn(process.env, place) ? process.env[place] : undefined
    if (found === undefined || found === '') {
      throw new OptionError(`${name}.env`, place, 'the name of a variable that is set')
    }
    variables.add(place)
    return found
  }
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(
    Object.entries(value).map(([key, part]) => [
      key,
      readReference(`${name}.${key}`, part, folder),
    ]),
  )
}

/**
 * Reads a configuration file: JSON with the names of the options; paths in it start from its own folder. A file with a fault
 * changes nothing. `named`: what the program was told the file by.
 */
export const loadConfiguration = (file: string, named = 'IKE_SOCKET_CONFIG'): void => {
  try {
    const parsed: unknown = parseJson(readFileSync(file, 'utf8'))
    if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed)) {
      throw new TypeError('it must hold one JSON object of options')
    }
    const folder = dirname(resolve(file))
    const options = Object.fromEntries(
      Object.entries(parsed).map(([name, value]) => [name, readReference(name, value, folder)]),
    )
    const before = current
    configure(options)
    try {
      checkDefaults(current)
    } catch (error) {
      current = before
      throw error
    }
  } catch (error) {
    throw new ConfigurationError(
      named,
      file,
      error instanceof Error ? error.message : String(error),
      error,
    )
  }
}

const { IKE_SOCKET_CONFIG } = process.env
if (IKE_SOCKET_CONFIG !== undefined && IKE_SOCKET_CONFIG !== '') {
  loadConfiguration(IKE_SOCKET_CONFIG)
}
