/**
 * Lists of revoked certificates (RFC 5280 §4.2.1.13) and OCSP answers (RFC 6960 appendix A.1), fetched for
 * certificates that already lead to a trust anchor. What comes back is signed, so plain HTTP is what the RFCs use.
 * Whoever has such a certificate chooses the addresses: their number, what they may reach, size and time are bounded,
 * redirections are not followed, and a failure gives nothing.
 */
import { createHash } from 'node:crypto'
import { lookup } from 'node:dns'
import { request, type ClientRequest } from 'node:http'
import { BlockList, isIP, type LookupFunction, type SocketConnectOpts } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Millis } from '../base/environment.ts'
import { printable } from '../base/errors.ts'
import type { StatusData, StatusSource } from '../core/events.ts'
import { plainConnect } from './plain-connect.ts'

const LARGEST = 8 << 20
/** Of one certificate. */
const MOST_ADDRESSES = 4

/** What a fetch needs of the world around it; times in milliseconds. */
export interface Surroundings {
  /** How names are looked up. */
  readonly lookup: typeof lookup
  /** Of one request, and of all that one handshake asks for. */
  readonly timeout: Millis
  readonly longest: Millis
  /** After this long without an answer the next address is asked in parallel. */
  readonly headStart: Millis
}

const SYSTEM: Surroundings = { lookup, timeout: 5000, longest: 15_000, headStart: 500 }

export interface FetchOptions {
  /** Networks such as `10.0.0.0/8` that may be asked although they are not public. */
  readonly allowed: readonly string[]
  /** Milliseconds since 1970 until which an answer holds by its own words; undefined: it is none. */
  readonly nextUpdate: (kind: StatusSource['kind'], octets: Uint8Array) => number | undefined
}

export const fetchStatus = async (
  wanted: readonly StatusSource[],
  { allowed, nextUpdate }: FetchOptions,
  surroundings: Surroundings = SYSTEM,
): Promise<StatusData> => {
  const end = AbortSignal.timeout(surroundings.longest)
  const reach = { listed: networks(allowed), surroundings }
  const failed: string[] = []
  const answers = await Promise.all(
    wanted.map(async source => ({
      kind: source.kind,
      octets: await fetchFirst(source, reach, nextUpdate, end, failed),
    })),
  )
  const ofKind = (kind: StatusSource['kind']): readonly Uint8Array[] =>
    answers.flatMap(answer =>
      answer.kind === kind && answer.octets !== undefined ? [answer.octets] : [],
    )
  return { crls: ofKind('crl'), ocsp: ofKind('ocsp'), failed }
}

interface Reach {
  readonly listed: BlockList
  readonly surroundings: Surroundings
}

/** Of the place that answers first; the others are then left alone. */
const fetchFirst = async (
  source: StatusSource,
  reach: Reach,
  nextUpdate: FetchOptions['nextUpdate'],
  end: AbortSignal,
  failed: string[],
): Promise<Uint8Array | undefined> => {
  const answered = new AbortController()
  const signal = AbortSignal.any([end, answered.signal])
  const tries = source.urls.slice(0, MOST_ADDRESSES).map(async (url, i) => {
    const known = remembered(source, url)
    if (known !== undefined) return known
    const { headStart } = reach.surroundings
    if (i > 0) await sleep(i * headStart, undefined, { signal, ref: false })
    const octets = await fetchOne(url, source, reach, signal).catch((error: unknown) => {
      if (!answered.signal.aborted) failed.push(`${printable(url, 200)}: ${reasonOf(error)}`)
      throw error
    })
    remember(source, url, octets, nextUpdate(source.kind, octets))
    return octets
  })
  const first = await Promise.any(tries).catch(() => undefined)
  answered.abort()
  return first
}

/** A code of the system, or our own words; an answer's text is not repeated. */
const reasonOf = (error: unknown): string => {
  if (!(error instanceof Error)) return 'failed'
  const { code, name, message } = error as NodeJS.ErrnoException
  if (typeof code === 'string') return code
  return name === 'TimeoutError' || name === 'AbortError' ? 'no answer in time' : message
}

const fetchOne = (
  url: string,
  source: StatusSource,
  { listed, surroundings }: Reach,
  signal: AbortSignal,
): Promise<Uint8Array> =>
  new Promise((resolve, reject) => {
    const body = source.kind === 'ocsp' ? source.request : undefined
    const host = new URL(url).hostname.replace(/^\[|\]$/g, '')
    // Node asks `lookup` about names alone.
    if (isIP(host) !== 0 && !mayReach(host, listed)) return reject(new Error(NOT_PUBLIC))
    // Node refuses other schemes than http: here, file: among them.
    const outgoing: ClientRequest = request(url, {
      method: body === undefined ? 'GET' : 'POST',
      createConnection: options => plainConnect(options as SocketConnectOpts),
      lookup: publicLookup(listed, surroundings.lookup),
      timeout: surroundings.timeout,
      signal: AbortSignal.any([signal, AbortSignal.timeout(surroundings.timeout)]),
      headers: body === undefined ? {} : { 'content-type': 'application/ocsp-request' },
    })
    outgoing.on('error', reject)
    outgoing.on('timeout', () => outgoing.destroy())
    outgoing.on('response', response => {
      const chunks: Buffer[] = []
      let length = 0
      const fail = (): void => {
        response.destroy()
        reject(new Error('no usable answer'))
      }
      if (response.statusCode !== 200) {
        response.destroy()
        return reject(new Error(`HTTP status ${response.statusCode}`))
      }
      response.on('data', (chunk: Buffer) => {
        length += chunk.length
        if (length > LARGEST) fail()
        else chunks.push(chunk)
      })
      response.on('error', reject)
      response.on('close', fail)
      response.on('end', () => resolve(new Uint8Array(Buffer.concat(chunks))))
    })
    outgoing.end(body)
  })

// --- which addresses may be asked ---

const NOT_PUBLIC = 'the address is not a public one'

/** As for `lookup` of net; the socket is connected to what was checked, so no later answer of DNS counts. */
const publicLookup =
  (listed: BlockList, resolve: typeof lookup): LookupFunction =>
  (host, options, callback) => {
    resolve(host, { ...options, all: true }, (error, addresses) => {
      if (error !== null) return callback(error, '')
      const usable = addresses.filter(({ address }) => mayReach(address, listed))
      const [first] = usable
      if (first === undefined) return callback(new Error(NOT_PUBLIC), '')
      if (options.all === true) callback(null, usable)
      else callback(null, first.address, first.family)
    })
  }

const networks = (names: readonly string[]): BlockList => {
  const list = new BlockList()
  for (const name of names) {
    const [address = '', prefix] = name.split('/')
    const is6 = isIP(address) === 6
    list.addSubnet(address, Number(prefix ?? (is6 ? 128 : 32)), is6 ? 'ipv6' : 'ipv4')
  }
  return list
}

/** RFC 6890, RFC 6598, RFC 1112: what is no address of one host of the public network. */
const SPECIAL = networks([
  ...['0.0.0.0/8', '10.0.0.0/8', '100.64.0.0/10', '127.0.0.0/8', '169.254.0.0/16'],
  ...['172.16.0.0/12', '192.0.0.0/24', '192.168.0.0/16', '198.18.0.0/15', '224.0.0.0/3'],
  ...['::/96', '64:ff9b:1::/48', '100::/64', '2001::/32', 'fc00::/7', 'fe80::/9', 'ff00::/8'],
])

/** Where an IPv6 address ends in, or has, an IPv4 one: mapped (RFC 4291), NAT64 (RFC 6052), 6to4 (RFC 3056). */
const EMBEDDED = [
  { network: networks(['::ffff:0:0/96']), at: 6 },
  { network: networks(['64:ff9b::/96']), at: 6 },
  { network: networks(['2002::/16']), at: 1 },
] as const

export const mayReach = (address: string, listed: BlockList): boolean => {
  const is6 = isIP(address) === 6
  const plain = address.split('%')[0]!
  const family = is6 ? 'ipv6' : 'ipv4'
  if (listed.check(plain, family)) return true
  if (is6) {
    const found = EMBEDDED.find(({ network }) => network.check(plain, 'ipv6'))
    if (found !== undefined) return mayReach(innerAddress(plain, found.at), listed)
  }
  return !SPECIAL.check(plain, family)
}

/** Of 16 octets as URL writes them in its canonical form: groups `at` and the next. */
const innerAddress = (address: string, at: number): string => {
  const text = new URL(`http://[${address}]/`).hostname.slice(1, -1)
  const [head = '', tail] = text.split('::')
  const groupsOf = (part: string): string[] => (part === '' ? [] : part.split(':'))
  const after = groupsOf(tail ?? '')
  const before = groupsOf(head)
  const zeros = Array.from({ length: 8 - before.length - after.length }, () => '0')
  const [high, low] = [...before, ...zeros, ...after]
    .slice(at, at + 2)
    .map(group => parseInt(group, 16))
  return [high! >> 8, high! & 255, low! >> 8, low! & 255].join('.')
}

// --- what was fetched before ---

/** Nobody has checked the signature yet: a forged answer must not stay for long. */
const LONGEST_KEPT = 3600_000
const MOST_KEPT = 64
const LARGEST_KEPT = 1 << 20

const kept = new Map<string, { readonly octets: Uint8Array; readonly until: number }>()

const keyOf = (source: StatusSource, url: string): string =>
  source.kind === 'crl'
    ? `crl ${url}`
    : `ocsp ${createHash('sha256').update(source.request).digest('hex')} ${url}`

const remembered = (source: StatusSource, url: string): Uint8Array | undefined => {
  const found = kept.get(keyOf(source, url))
  return found !== undefined && Date.now() < found.until ? found.octets : undefined
}

/** Until the next update that it tells of. */
const remember = (
  source: StatusSource,
  url: string,
  octets: Uint8Array,
  next: number | undefined,
): void => {
  const now = Date.now()
  if (octets.length > LARGEST_KEPT || next === undefined || next <= now) return
  const key = keyOf(source, url)
  kept.delete(key)
  kept.set(key, { octets, until: Math.min(next, now + LONGEST_KEPT) })
  const [oldest] = kept.keys()
  if (kept.size > MOST_KEPT && oldest !== undefined) kept.delete(oldest)
}
