/**
 * The steps by which `ike-socket doctor` finds why a connection fails, each from what the one before found. A step says
 * what is, and what helps. What it asks of a peer before that has proved itself is one IKE_SA_INIT, and then what every
 * client sends.
 */
import type { X509Certificate } from 'node:crypto'
import { lookup as systemLookup, type LookupAddress } from 'node:dns'
import { connect, isIP, isIPv6 } from 'node:net'
import { networkInterfaces } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import { ERROR_TABLE } from '../base/error-table.ts'
import { IpsecError } from '../base/errors.ts'
import { CN_IS_NO_NAME } from '../identity/certificate-identity.ts'
import type { SecureSocketOptions } from '../api/options.ts'
import {
  ALL_ESP,
  ALL_IKE,
  certificatesOf,
  guessableKey,
  interfaceMtu,
  probeGateway,
  SHORT_PSK,
  tryPacket,
  type KnownCertificate,
  type Reach,
  type ShownCertificate,
} from '../api/probe.ts'
import type { Session } from '../api/session.ts'
import { openSession, type OpenSession } from './target.ts'
import { summaryOf } from './round-trips.ts'
import { plain } from './terminal.ts'
import { vendorNames } from './vendors.ts'

export const STEPS = [
  'name',
  'route',
  'UDP',
  'NAT',
  'proposals',
  'clock',
  'authentication',
  'data',
  'round trips',
  'MTU',
  'rekey',
  'port',
  'selectors',
] as const
export type StepName = (typeof STEPS)[number]

export interface Step {
  readonly name: StepName
  /** `note`: worth knowing, and no fault by itself. */
  readonly state: 'ok' | 'bad' | 'note'
  /** A sentence without its full stop. */
  readonly says: string
  /** The next step: a sentence with its full stop. */
  readonly cure?: string | undefined
  /** What belongs to the step in parts, such as the certificates of a chain. */
  readonly parts?: readonly Part[]
}

export interface Part {
  readonly state: Step['state']
  readonly says: string
}

export interface Diagnosis {
  readonly steps: readonly Step[]
  /** The first step that is bad: what it says is why the connection fails. */
  readonly cause: Step | undefined
}

/** What is asked of. */
export type Target = SecureSocketOptions & { readonly host: string }

/** Milliseconds: of the whole, and of its parts. */
const WHOLE = 29_000
const SILENCE = 5000
const SECOND_LOOK = 2000
const HANDSHAKE = 12_000
const CHILD_TRIALS = 5000
const PROBES = 20
const PROBING = 5000
const SILENCE_INSIDE = 3000
/** Later answers meet a repetition, although nothing was lost. */
const REPEATED = 450
const REKEY = 4000
const INNER = 5000
const MOST_ADDRESSES = 4
const SOON = 14 * 86_400_000
const SIZES = 7000
/** Octets of IP packets: of interfaces that do not tell, of jumbo frames, and what nearly every path takes. */
const ETHERNET = 1500
const JUMBO = 9000
const BASE = 1280
const ROUGH_SIZES = [1500, BASE, 900, 576]
/** Of tunnels and DSL. */
const FINE_SIZES = [1340, 1380, 1400, 1420, 1454, 1472, 1492]

const LINK_LOCAL = /^fe[89ab][^%]*$/i

/** Of one side, as a policy has them: more are what is left of everything. */
const MOST_SELECTORS = 4
const EVERYTHING = ['0.0.0.0/0', '::/0'] as const
const DEFAULT_PORT = 4500
const IKE_PURPOSES: ReadonlySet<string> = new Set(['1.3.6.1.5.5.7.3.17', '2.5.29.37.0'])

/** What the peer gives for data; no suite where it does not cover the connection. */
interface Given {
  readonly suite?: string
  readonly localSelectors: readonly string[]
  readonly remoteSelectors: readonly string[]
}

/** One of the smallest there are. */
const SMALL_IKE = 'aes256gcm16-prfsha256-x25519'

const OTHER_PORT =
  'Set "ikePort" to the UDP port of the IKE server, or find out which program has this one.'
/** What a port does that answers, and no request of ours. */
const ODDITIES: Readonly<
  Record<
    Extract<Reach, { kind: 'silent' }>['oddities'][number],
    { readonly says: string; readonly cure: string }
  >
> = {
  IKEv1: {
    says: ' in IKEv1 alone',
    cure: 'Set the peer to IKEv2; IKEv1 is deprecated (RFC 9395) and not spoken here.',
  },
  echo: { says: ' with our own request: it is an echo service', cure: OTHER_PORT },
  marker: {
    says: ' in IKE, with the framing of another port: the non-ESP marker belongs to each but 500 (RFC 3948)',
    cure: 'Set "ikePort" to the port that the server has for NAT traversal, mostly 4500, or to 500.',
  },
  cookie: {
    says: ' and asks each time for another cookie: the server may be overloaded',
    cure: 'Look at the load of the server. It has to accept the cookie that it has given (RFC 7296 section 2.6).',
  },
  IKEv2: {
    says: ' in IKEv2, with nothing that answers our request',
    cure: 'The log of the peer may say why; "ike-socket capture" shows what it sends.',
  },
  other: { says: ', and what it says is not IKE', cure: OTHER_PORT },
}

/** Octets; 'not asked': the peer does not do its part. */
type Found = number | 'not asked' | 'not found'

class TimeIsUp extends Error {}

/** A failure of our own kind, as it says it and what it says helps. */
const partsOf = (error: unknown): { says: string; cure?: string } => {
  const message = error instanceof Error ? error.message : String(error)
  const cure = IpsecError.is(error) ? error.cure : undefined
  if (cure === undefined || !message.endsWith(cure)) return { says: message }
  return { says: message.slice(0, -cure.length).replace(/\. $/, ''), cure }
}

const reasonOf = (error: unknown): string => (IpsecError.is(error) && error.reason) || ''

/** Both ends had proved themselves when this came. */
const isOfChild = (error: unknown): boolean => {
  const reason = reasonOf(error)
  return (
    Object.hasOwn(ERROR_TABLE, reason) &&
    ERROR_TABLE[reason as keyof typeof ERROR_TABLE].ends === 'the Child SA'
  )
}

/** Something that listens on TCP: it accepts, or refuses by itself; undefined: nothing comes back. */
const callTcp = (host: string, port: number): Promise<'accepts' | 'refuses' | undefined> =>
  new Promise(resolve => {
    const socket = connect({ host, port, timeout: SECOND_LOOK })
    const end = (found: 'accepts' | 'refuses' | undefined): void => {
      socket.destroy()
      resolve(found)
    }
    socket.on('connect', () => end('accepts'))
    socket.on('timeout', () => end(undefined))
    socket.on('error', ({ code }: NodeJS.ErrnoException) =>
      end(code === 'ECONNREFUSED' ? 'refuses' : undefined),
    )
  })

const interfaceOf = (address: string): string | undefined =>
  Object.entries(networkInterfaces()).find(([, list]) =>
    list?.some(entry => entry.address === address),
  )?.[0]

/** In the words of the option "esp", of how a suite is shown. */
const keywordsOf = (suite: string): string =>
  suite
    .toLowerCase()
    .replace(/ with esn$/, '')
    .replace(/^aes-gcm-16-(\d+)/, 'aes$1gcm16')
    .replace(/^aes-cbc-(\d+)/, 'aes$1')
    .replace('chacha20-poly1305', 'chacha20poly1305')
    .replace(/\/hmac-sha(?:2-)?(\d+)\S*/, '-sha$1')

const day = (time: string): string => new Date(time).toISOString()

const namesOf = ({ subjectAltName }: X509Certificate): string =>
  subjectAltName === undefined
    ? `its subject (${CN_IS_NO_NAME})`
    : plain(subjectAltName.replace(/DNS:|email:|IP Address:/g, '').replace(/\n/g, ', '))

export interface Terms {
  /** Gets each step as soon as it is known. */
  report(step: Step): void
  /** What is being done, and how far the whole is, 0 to 1. */
  working?(words: string, share: number): void
  /** Milliseconds until it is stopped. */
  readonly limit?: number
  /** Nobody gave credentials: what needs none is looked at. */
  readonly isStranger?: boolean
  /** Authenticate although the pre-shared key is short, so that anyone who answers can guess it. */
  readonly allowsShortKey?: boolean
}

export class Diagnostician {
  private readonly target: Target
  private readonly peer: string
  private readonly port: number
  private readonly terms: Terms
  private readonly certificates: readonly KnownCertificate[]
  private readonly steps: Step[] = []
  private readonly end: number
  private readonly hasPort: boolean
  private readonly doubts: string[] = []
  private open: OpenSession | undefined
  /** Each request of IKE is repeated before its answer comes. */
  private isSlow = false
  /** Of the peer, where it answers. */
  private address = ''

  constructor(target: Target, terms: Terms) {
    // Its SA stays until the last step, though the connection in it may be refused at once.
    this.target = { ...target, port: target.port ?? 9, idleTimeout: 0 }
    this.hasPort = target.port !== undefined
    this.peer = target.gateway ?? target.host
    this.port = target.ikePort ?? DEFAULT_PORT
    this.terms = terms
    this.end = performance.now() + (terms.limit ?? WHOLE)
    // A wrong option is no finding: it throws.
    this.certificates = certificatesOf(this.target)
  }

  async run(): Promise<Diagnosis> {
    let name: StepName = 'name'
    const at = (next: StepName): void => {
      name = next
      this.terms.working?.(next, STEPS.indexOf(next) / STEPS.length)
    }
    try {
      at('name')
      const addresses = await this.lookUp()
      if (addresses.length === 0) return this.result
      at('UDP')
      const reach = await this.reach(addresses)
      if (reach === undefined) return this.result
      this.address = reach.address
      at('proposals')
      if (!(await this.propose(reach))) return this.result
      at('clock')
      this.compareClock()
      if (this.terms.isStranger === true) {
        const says = 'No credentials were given, so nothing more can be tried'
        this.say('authentication', 'note', says, '--config FILE has the options of the client.')
        return this.result
      }
      at('authentication')
      if (this.isGuessable()) return this.result
      const session = await this.authenticate()
      if (session === undefined) return this.result
      at('round trips')
      if (!(await this.probe(session))) return this.result
      at('MTU')
      if (!(await this.measure(session))) return this.result
      at('rekey')
      await this.rekey(session)
      at('port')
      await this.knock()
      at('selectors')
      this.close()
      await this.askForEverything()
    } catch (error) {
      const words = error instanceof TimeIsUp ? 'it took too long, and was stopped' : undefined
      this.say(name, 'bad', words ?? partsOf(error).says, partsOf(error).cure)
    } finally {
      this.close()
    }
    return this.result
  }

  private get result(): Diagnosis {
    return { steps: this.steps, cause: this.steps.find(({ state }) => state === 'bad') }
  }

  private close(): void {
    this.open?.close()
    this.open = undefined
  }

  private say(
    name: StepName,
    state: Step['state'],
    says: string,
    cure?: string,
    parts: readonly Part[] = [],
  ): void {
    const step = {
      name,
      state,
      says,
      ...(cure === undefined ? {} : { cure }),
      ...(parts.length === 0 ? {} : { parts }),
    }
    this.steps.push(step)
    this.terms.report(step)
  }

  /** Neither longer than that nor than the whole may take. */
  private async within<T>(work: Promise<T>, most: number): Promise<T> {
    const left = Math.max(0, Math.min(most, this.end - performance.now()))
    const timer = new AbortController()
    const limit = sleep(left, undefined, { signal: timer.signal }).then(() => {
      throw new TimeIsUp()
    })
    work.catch(() => {})
    limit.catch(() => {})
    try {
      return await Promise.race([work, limit])
    } finally {
      timer.abort()
    }
  }

  /** A session that nobody waits for any more is given up: a peer that stalls must not hold the process. */
  private async enter(options: SecureSocketOptions, most: number): Promise<OpenSession> {
    const waiting = new AbortController()
    try {
      return await this.within(openSession(options, waiting.signal), most)
    } catch (error) {
      waiting.abort()
      throw error
    }
  }

  // --- the way there ---

  private async lookUp(): Promise<readonly string[]> {
    const { peer } = this
    if (isIP(peer.split('%')[0]!) !== 0) {
      this.say('name', 'ok', `${peer} is an address`)
      return [peer]
    }
    try {
      const family = this.target.family === 4 || this.target.family === 6 ? this.target.family : 0
      const found = await this.within(this.addressesOf(peer, family), SILENCE)
      const addresses = found.map(({ address }) => address)
      this.say('name', 'ok', `${plain(peer)} is ${addresses.join(', ')}`)
      return addresses.slice(0, MOST_ADDRESSES)
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      const words = code === undefined ? 'the resolver does not answer' : code
      const [, name, port] =
        /^(?:\w+:\/\/)?(\[[^\]]+\]|[^/:]+)(?::(\d+))?(?:\/.*)?$/.exec(peer) ?? []
      this.say(
        'name',
        'bad',
        `The name ${plain(peer)} is not found: ${words}`,
        name === undefined || name === peer
          ? 'Check the spelling, and the resolver of this host.'
          : `Give the name and the port apart: ike-socket doctor ${plain(name)}${port === undefined ? '' : ` ${port}`}.`,
      )
      return []
    }
  }

  private async addressesOf(name: string, family: number): Promise<readonly LookupAddress[]> {
    const { lookup = systemLookup } = this.target
    return new Promise((resolve, reject) => {
      lookup(name, { all: true, family }, (error, found, foundFamily) => {
        const list = Array.isArray(found)
          ? found
          : [{ address: found, family: foundFamily ?? isIP(found) }]
        if (error !== null) reject(error)
        else if (list.length > 0) resolve(list)
        else reject(Object.assign(new Error('no address'), { code: 'it has no address' }))
      })
    })
  }

  /** What one port answers to our first message; `changes`: what it offers instead. */
  private ask(
    address: string,
    port: number,
    timeout: number,
    changes: Pick<SecureSocketOptions, 'ike'> = {},
  ): Promise<Reach> {
    const options = { ...this.target, ...changes }
    return this.within(probeGateway(options, address, port, timeout), timeout + 500)
  }

  /** The address that answers, with what it answers. */
  private async reach(
    addresses: readonly string[],
  ): Promise<{ address: string; reach: Reach } | undefined> {
    const other = this.port === DEFAULT_PORT ? this.ask(addresses[0]!, 500, SILENCE) : undefined
    const asked = await Promise.all(
      addresses.map(async address => ({
        address,
        reach: await this.ask(address, this.port, SILENCE),
      })),
    )
    const first = asked.find(({ reach }) => reach.kind === 'answered')
    const { source } = (first ?? asked[0]!).reach
    if (source === undefined) {
      const [{ address, reach }] = asked as [(typeof asked)[0]]
      const code = reach.kind === 'refused' ? reach.code : 'ENETUNREACH'
      const says = `This host has no way to ${address}: ${code}`
      const cure = LINK_LOCAL.test(address)
        ? `A link-local address needs its interface: ${address}%${Object.keys(networkInterfaces()).find(name => name !== 'lo') ?? 'eth0'}.`
        : `See "ip route get ${address}"${isIPv6(address) ? '; "family: 4" asks for IPv4' : ''}.`
      this.say('route', 'bad', says, cure)
      return undefined
    }
    const name = interfaceOf(source)
    const mtu = interfaceMtu(source)
    const by = name === undefined ? '' : ` by the interface ${name}`
    const size = mtu === undefined ? '' : `, packets of ${mtu} octets at most`
    this.say('route', 'ok', `To ${(first ?? asked[0]!).address} from ${source}${by}${size}`)
    const at500 = await other
    const is500Alone = first === undefined && at500?.kind === 'answered'
    for (const { address, reach } of asked) {
      if (reach.kind !== 'answered') {
        await this.explain(address, reach, first?.address, is500Alone)
        continue
      }
      const after = `UDP port ${this.port} of ${address} answers, after ${Math.round(reach.milliseconds)} ms`
      if (reach.repeats === 0) this.say('UDP', 'ok', after)
      else
        this.say(
          'UDP',
          'note',
          `${after}; the request had to be sent ${reach.repeats + 1} times`,
          'The way loses packets or is slow, or the server is busy: expect waits.',
        )
    }
    if (at500 !== undefined && !is500Alone)
      this.say(
        'UDP',
        'note',
        `UDP port 500 of ${addresses[0]!} ${describeReach(at500)}; it is not needed`,
      )
    return first
  }

  /** `other`: an address that answers; `is500Alone`: UDP port 500 of this one does. */
  private async explain(
    address: string,
    reach: Reach,
    other: string | undefined,
    is500Alone: boolean,
  ): Promise<void> {
    const { port, target } = this
    if (other !== undefined) {
      const says = `UDP port ${port} of ${address} ${describeReach(reach)}; ${other} answers`
      const isOtherFamily = isOfIpv6(other) !== isOfIpv6(address)
      return this.say(
        'UDP',
        'note',
        says,
        isOtherFamily
          ? `Set "family" to ${isOfIpv6(other) ? 6 : 4}, or start the server at that address too.`
          : 'Start the server at that address too, or take it out of the name.',
      )
    }
    const state = 'bad'
    if (is500Alone)
      return this.say(
        'UDP',
        state,
        `UDP port ${port} of ${address} ${describeReach(reach)}, and an IKE server answers at UDP port 500 of it`,
        `Open UDP port ${port} on the way and at the server, since data goes there; "ikePort: 500" only begins at port 500.`,
      )
    const [tcp, elsewhere, small] = await Promise.all([
      this.within(callTcp(address, Number(target.port)), SECOND_LOOK + 500),
      this.port === DEFAULT_PORT ? undefined : this.ask(address, DEFAULT_PORT, SECOND_LOOK),
      reach.kind === 'silent'
        ? this.ask(address, port, SECOND_LOOK, { ike: SMALL_IKE })
        : undefined,
    ])
    const plainServer =
      tcp === 'accepts'
        ? `; TCP port ${target.port} of it accepts connections outside the tunnel: a server of plain TCP or TLS does not speak IKE`
        : ''
    const atDefault =
      elsewhere?.kind === 'answered' ? ` An IKE server answers at UDP port ${DEFAULT_PORT}.` : ''
    if (reach.kind === 'refused' && reach.code === 'ECONNREFUSED') {
      return this.say(
        'UDP',
        state,
        `UDP port ${port} of ${address} is refused (${reach.code}): the host, or a firewall in front of it, says that nothing listens there${plainServer}`,
        `Start the server, or set "ikePort" to the UDP port that it has${familyHint(address)}.${atDefault}`,
      )
    }
    if (reach.kind === 'refused') {
      return this.say(
        'UDP',
        state,
        `UDP port ${port} of ${address} is not reached: a router or firewall on the way says so (${reach.code})`,
        `Check the route and the firewalls on the way to ${address}${familyHint(address)}.${atDefault}`,
      )
    }
    const host =
      tcp === undefined
        ? 'the host may be down, or all of it filtered'
        : 'the host is there, since TCP answers'
    const [odd] = reach.kind === 'silent' ? reach.oddities : []
    if (odd !== undefined) {
      const { says, cure } = ODDITIES[odd]
      return this.say(
        'UDP',
        state,
        `UDP port ${port} of ${address} answers${says}`,
        `${cure}${atDefault}`,
      )
    }
    if (reach.kind === 'silent' && small?.kind === 'answered')
      return this.say(
        'UDP',
        state,
        `UDP port ${port} of ${address} answers small requests alone: a packet of ${reach.packet} octets, our first message, is lost`,
        'Look for a hop on the way that loses packets by their size: every path must carry 576 octets (RFC 791). One proposal in "ike" makes the first message small.',
      )
    this.say(
      'UDP',
      state,
      `No answer to IKE over UDP from ${address} port ${port} within ${SILENCE / 1000} s: a firewall may have blocked UDP, the address or the port may be wrong, or no server runs there; ${host}${plainServer}`,
      `Check that UDP port ${port} is open on the way to ${address} and that the server runs${familyHint(address)}.${atDefault}`,
    )
  }

  // --- what the two ends agree on ---

  private async propose({ address, reach }: { address: string; reach: Reach }): Promise<boolean> {
    if (reach.kind !== 'answered') return false
    const { answer } = reach
    if (answer.kind === 'accepted') {
      if (answer.localBehindNat)
        this.say(
          'NAT',
          'ok',
          `A NAT changes our address ${reach.source}: its mapping is kept by a packet every 20 s of silence`,
        )
      else this.say('NAT', 'ok', 'No NAT changes our address')
      const who = answer.isOurs ? 'ike-socket' : vendorNames(answer.vendors)
      this.say('proposals', 'ok', `${who} answers, and takes ${answer.proposal}`)
      return true
    }
    const { says, cure } = partsOf(answer.error)
    const isProposal = ['REFUSED_PROPOSAL', 'REFUSED_GROUP'].includes(reasonOf(answer.error))
    const all = isProposal
      ? await this.ask(address, this.port, SECOND_LOOK, { ike: ALL_IKE })
      : undefined
    if (all?.kind === 'answered' && all.answer.kind === 'accepted') {
      const { proposal } = all.answer
      const better = `Set the option "ike" to '${proposal}', or have the peer accept one of ours.`
      this.say(
        'proposals',
        'bad',
        `${says}; asked for all that we can, it takes ${proposal}`,
        better,
      )
    } else if (isProposal && all?.kind === 'answered')
      this.say(
        'proposals',
        'bad',
        `${says}; asked for all that we can, it takes none of that either`,
        'The peer may have no connection for our address, one for IKEv1 alone, or only algorithms that are broken and not spoken here (3DES, DES, MD5: RFC 8247): look at its log and its configuration.',
      )
    else this.say('proposals', 'bad', says, cure)
    return false
  }

  private compareClock(): void {
    const now = Date.now()
    const clock = `our clock says ${new Date(now).toISOString()}`
    const known = this.certificates
    if (known.length === 0)
      return this.say('clock', 'ok', `${upper(clock)}; there is no certificate to compare it with`)
    let isBad = false
    for (const { isOurs, certificate } of known) {
      const from = Date.parse(certificate.validFrom)
      const to = Date.parse(certificate.validTo)
      const whose = isOurs ? 'Our certificate' : 'The trusted CA'
      const what = `${whose} '${plain(certificate.subject.replace(/\n/g, ', '))}'`
      if (now > to || now < from) {
        isBad = true
        const says =
          now > to
            ? `${what} has expired (notAfter ${day(certificate.validTo)}; ${clock})`
            : `${what} is not yet valid (notBefore ${day(certificate.validFrom)}; ${clock})`
        const cure =
          'Have its issuer make a new certificate, or set our clock right if it is wrong.'
        this.say('clock', 'bad', says, cure)
      } else if (to - now < SOON)
        this.say(
          'clock',
          'note',
          `${what} expires soon, at ${day(certificate.validTo)}`,
          'Renew it ("ike-socket renew" where keygen made it).',
        )
      if (isOurs && !certificate.ca) this.doubt(certificate)
    }
    if (!isBad)
      this.say(
        'clock',
        'ok',
        `${upper(clock)}; ${known.length === 1 ? 'the certificate is' : `all ${known.length} certificates are`} valid at that time`,
      )
  }

  /** What a peer may hold against our certificate. */
  private doubt(certificate: X509Certificate): void {
    const { localId } = this.target
    const isName = localId !== undefined && /^[\w.@-]+$/.test(localId)
    const isFor = (name: string): boolean =>
      (name.includes('@')
        ? certificate.checkEmail(name, { subject: 'never' })
        : certificate.checkHost(name, { subject: 'never' })) !== undefined
    if (isName && !isFor(localId))
      this.doubts.push(
        `our certificate is not for "localId" '${localId}', only for ${namesOf(certificate)}`,
      )
    const purposes = certificate.keyUsage as readonly string[] | undefined
    if (purposes !== undefined && !purposes.some(purpose => IKE_PURPOSES.has(purpose)))
      this.doubts.push(
        'our certificate has other purposes than IKE, which a peer takes with "extendedKeyUsage: \'tls\'" alone',
      )
  }

  /** A peer that trusts a root alone needs the certificates between (RFC 7296 §3.6). */
  private missingIssuers(): readonly string[] {
    const known = new Set(this.certificates.map(({ certificate }) => certificate.subject))
    return this.certificates
      .filter(({ isOurs, certificate }) => isOurs && !known.has(certificate.issuer))
      .map(
        ({ certificate }) =>
          `the certificate of its issuer, '${plain(certificate.issuer.replace(/\n/g, ', '))}', is neither in "cert" nor in "ca", so the peer must have it`,
      )
  }

  /**
   * RFC 7296 §2.15: the client proves itself first, by a MAC under the key. Anyone who answers can try keys against it, and a
   * short key is found that way. So nothing of it leaves here: it may be that this is not the peer.
   */
  private isGuessable(): boolean {
    const octets = guessableKey(this.target)
    if (octets === undefined || this.terms.allowsShortKey === true) return false
    this.say(
      'authentication',
      'bad',
      `The pre-shared key has ${octets} octets: anyone who answers in the peer's place could guess it from our proof, so none was sent`,
      `Use a key of ${SHORT_PSK} random octets or more at both ends ("ike-socket keygen"). --short-key goes on with this one.`,
    )
    return true
  }

  private async authenticate(): Promise<Session | undefined> {
    try {
      this.open = await this.enter(this.target, HANDSHAKE)
    } catch (error) {
      if (error instanceof TimeIsUp) {
        await this.explainStall()
        return undefined
      }
      if (!isOfChild(error)) {
        const { says, cure = CURES.get((error as NodeJS.ErrnoException).code) } = partsOf(error)
        const doubts = [...this.doubts, ...this.missingIssuers()].map(text => `; ${text}`).join('')
        this.say('authentication', 'bad', `${says}${doubts}`, cure, shownParts(error))
        return undefined
      }
      this.say('authentication', 'ok', 'Both ends have proved who they are')
      await this.explainChild(error)
      return undefined
    }
    const { session } = this.open
    const now = Date.now()
    const chain = session.peerCertificates.map((certificate): Part => {
      const isShort = Date.parse(certificate.validTo) - now < SOON
      const name = plain(certificate.subject.replace(/\n/g, ', '))
      const times = `valid from ${day(certificate.validFrom)} to ${day(certificate.validTo)}`
      return {
        state: isShort ? 'note' : 'ok',
        says: `'${name}', ${times}${isShort ? ', which is soon' : ''}`,
      }
    })
    this.say(
      'authentication',
      'ok',
      `${plain(session.peerId)} has proved itself by ${METHODS[session.authentication]}, and takes us for ${plain(session.localId)}`,
      undefined,
      chain,
    )
    for (const text of this.doubts) this.say('authentication', 'note', upper(text))
    if (this.target.virtualAddress === true && session.virtualAddresses.length === 0)
      this.say(
        'data',
        'note',
        'The peer was asked for an inner address ("virtualAddress") and gave none',
        'Give the peer a pool of addresses ("addressPool" of ike-socket), or leave "virtualAddress" out and set "localAddress".',
      )
    const [child] = session.info.children
    if (child !== undefined)
      this.say(
        'data',
        'ok',
        `${child.suite} in ${child.mode} mode, for ${child.localSelectors.join(' ')} here and ${child.remoteSelectors.join(' ')} there`,
      )
    return session
  }

  private async explainStall(): Promise<void> {
    const says = `The peer has answered IKE_SA_INIT, and IKE_AUTH does not end within ${HANDSHAKE / 1000} s`
    // RFC 7296 §2.23: from here on it goes to port 4500.
    const reach =
      this.port === 500 ? await this.ask(this.address, DEFAULT_PORT, SECOND_LOOK) : undefined
    if (reach !== undefined && reach.kind !== 'answered')
      return this.say(
        'authentication',
        'bad',
        `${says}: it goes to UDP port 4500, which ${reach.kind === 'refused' ? `is refused (${reach.code})` : 'is silent'}`,
        'Open UDP port 4500 on the way and at the server.',
      )
    this.say(
      'authentication',
      'bad',
      says,
      'Look for a firewall that loses large or later datagrams, and at the log of the peer.',
    )
  }

  // --- data ---

  /** What the peer gives for data when it is asked with other options. */
  private async attempt(changes: SecureSocketOptions): Promise<Given | undefined> {
    try {
      const trial = await this.enter({ ...this.target, ...changes }, CHILD_TRIALS)
      const [child] = trial.session.info.children
      trial.close()
      return child
    } catch (error) {
      if (reasonOf(error) !== 'NARROWED') return undefined
      // What does not cover the connection is what we want to know, too.
      return (error as IpsecError).details as unknown as Given
    }
  }

  private async explainChild(error: unknown): Promise<void> {
    const { says, cure } = partsOf(error)
    const reason = reasonOf(error)
    if (reason === 'REFUSED_SELECTORS' || reason === 'NARROWED') {
      const all = await this.attempt({
        mode: 'tunnel',
        localTs: EVERYTHING,
        remoteTs: EVERYTHING,
      })
      if (all === undefined) return this.say('data', 'bad', says, cure)
      const here = all.localSelectors.join(', ')
      const there = all.remoteSelectors.join(', ')
      const isOurs = all.localSelectors.length <= MOST_SELECTORS
      return this.say(
        'data',
        'bad',
        `${says}; asked for everything, it gives ${isOurs ? here : 'most addresses'} here and ${there} there`,
        reason === 'NARROWED' && this.target.remoteTs === undefined
          ? `Connect to an address of ${there}, or widen the selectors of the peer.`
          : `Set ${isOurs ? `"localTs" to '${here}' and ` : ''}"remoteTs" to '${there}', or widen the selectors of the peer.`,
      )
    }
    if (reason === 'REFUSED_CHILD_PROPOSAL' || reason === 'REFUSED_TRANSPORT') {
      const modes = (['tunnel', 'transport'] as const).filter(mode => mode !== this.target.mode)
      for (const mode of this.target.mode === undefined || this.target.mode === 'auto'
        ? []
        : modes) {
        if ((await this.attempt({ mode })) === undefined) continue
        return this.say(
          'data',
          'bad',
          `${says}; it takes ${mode} mode`,
          `Set "mode" to '${mode}' or 'auto' here, or to ${this.target.mode} at the peer.`,
        )
      }
      const child = await this.attempt({ esp: ALL_ESP })
      if (child?.suite !== undefined) {
        const words = keywordsOf(child.suite)
        return this.say(
          'data',
          'bad',
          `${says}; asked for all that we can, it takes ${words}`,
          `Set the option "esp" to '${words}', or have the peer accept one of ours.`,
        )
      }
    }
    this.say('data', 'bad', says, cure)
  }

  /** How large packets pass inside the SA, found by requests of IKE that are filled: ESP has the same addresses and ports. False: the peer is lost. */
  private async measure(session: Session): Promise<boolean> {
    const { path, fragmentSize } = session.info
    if (this.isSlow) {
      this.say('MTU', 'note', 'The way is too slow for sizes of packets to be tried')
      return true
    }
    const most = Math.min(interfaceMtu(path.localAddress) ?? ETHERNET, JUMBO)
    const there = await this.largest(session, 'there', most)
    const back = await this.largest(session, 'back', most)
    const cut = `; IKE is cut at ${fragmentSize}`
    const says =
      there === back && typeof there === 'number' && there > 0
        ? `Packets of ${there} octets pass both ways${cut}`
        : `To the peer ${sizeWords(there)}; from the peer ${sizeWords(back)}${cut}`
    const known = [there, back].filter(found => typeof found === 'number')
    if (there === 'not found' && back === 'not found' && !(await this.isThere(session))) {
      this.say(
        'MTU',
        'bad',
        'The peer has fallen silent: probes of no size were answered',
        'The peer has gone, or the way was closed: look at its log, and at firewalls that end a flow.',
      )
      return false
    }
    if (known.includes(0))
      this.say(
        'MTU',
        'bad',
        says,
        'Look for a hop on the way that loses packets by their size: every path must carry 576 octets (RFC 791).',
      )
    else if (known.some(found => found < Math.min(most, BASE)))
      this.say(
        'MTU',
        'note',
        says,
        'The way takes less than nearly every other does: look for a tunnel within a tunnel, or set "mtu".',
      )
    else if (there === 'not found' || back === 'not found')
      this.say('MTU', 'note', says, 'The way is too slow for more to be tried in that time.')
    else this.say('MTU', 'ok', says)
    return true
  }

  /** A slow way leaves no time for sizes, and a lost peer none for anything. */
  private async isThere(session: Session): Promise<boolean> {
    try {
      await this.within(session.ping(), SILENCE_INSIDE)
      return true
    } catch {
      return false
    }
  }

  /** The largest of the usual sizes that passes; 0: none does. */
  private async largest(session: Session, way: 'there' | 'back', most: number): Promise<Found> {
    const until = Math.min(performance.now() + SIZES, this.end)
    const passes = async (size: number): Promise<boolean | undefined> => {
      this.terms.working?.(`packets of ${size} octets`, STEPS.indexOf('MTU') / STEPS.length)
      const attempt = (): Promise<boolean | undefined> =>
        this.within(tryPacket(session, size, way), until - performance.now())
      // One may be lost, or late, for another reason.
      const first = await attempt()
      return first === false ? attempt() : first
    }
    let found = 0
    try {
      // Mostly the largest passes; else those below tell between which two the limit lies.
      for (const size of [most, ...ROUGH_SIZES.filter(less => less < most)]) {
        const isPassed = await passes(size)
        if (isPassed === undefined) return 'not asked'
        if (!isPassed) continue
        found = size
        break
      }
      if (found !== BASE) return found
      for (const size of FINE_SIZES.filter(less => less < most)) {
        if ((await passes(size)) !== true) break
        found = size
      }
    } catch (error) {
      if (!(error instanceof TimeIsUp)) throw error
      if (found === 0) return 'not found'
    }
    return found
  }

  /** False: the peer is lost. */
  private async probe(session: Session): Promise<boolean> {
    const before = session.info.ikeRetransmissions
    const times: number[] = []
    let heardAt = performance.now()
    const until = Math.min(heardAt + PROBING, this.end)
    while (times.length < PROBES && performance.now() < until) {
      this.terms.working?.(
        `round trips ${times.length + 1} of ${PROBES}`,
        STEPS.indexOf('round trips') / STEPS.length,
      )
      try {
        times.push(await this.within(session.ping(), until - performance.now()))
        heardAt = performance.now()
      } catch (error) {
        if (!(error instanceof TimeIsUp)) throw error
      }
    }
    if (times.length === 0) {
      this.say(
        'round trips',
        'bad',
        `No probe inside the SA was answered within ${PROBING / 1000} s, after both ends had proved themselves`,
        'The peer has gone, or the way loses what comes after the handshake: look at firewalls that know only its beginning.',
      )
      return false
    }
    const lost = session.info.ikeRetransmissions - before
    if (performance.now() - heardAt > SILENCE_INSIDE) {
      this.say(
        'round trips',
        'bad',
        `After ${times.length} of ${PROBES} probes the peer fell silent`,
        'The peer has gone, or the way was closed: look at its log, and at firewalls that end a flow.',
      )
      return false
    }
    const { min, median, max } = summaryOf(times)
    const says = `${times.length} of ${PROBES} probes were answered: ${min.toFixed(1)}, ${median.toFixed(1)}, ${max.toFixed(1)} ms (least, median, most), ${lost} sent again`
    this.isSlow = min > REPEATED
    if (this.isSlow)
      this.say('round trips', 'note', says, 'The way is slow, or the peer busy: expect waits.')
    else if (lost > 0 || times.length < PROBES)
      this.say('round trips', 'note', says, 'The way loses packets: expect waits.')
    else this.say('round trips', 'ok', says)
    return true
  }

  private async rekey(session: Session): Promise<void> {
    const { childRekeys: before, rekeyRefusal: old } = session.info
    const start = performance.now()
    session.rekeyChild()
    while (session.info.childRekeys === before && session.info.rekeyRefusal === old) {
      if (performance.now() > Math.min(start + REKEY, this.end)) break
      await sleep(20)
    }
    const { childRekeys, rekeyRefusal } = session.info
    if (childRekeys > before) {
      const took = Math.round(performance.now() - start)
      return this.say('rekey', 'ok', `New keys for the data after ${took} ms`)
    }
    this.say(
      'rekey',
      'bad',
      rekeyRefusal === undefined
        ? `The peer makes no new keys for the data within ${REKEY / 1000} s`
        : `The peer refuses new keys for the data: ${rekeyRefusal.message.replace(/\.$/, '')}`,
      'Set "esp" and "pfs" to what the peer has for a rekey: a connection will end when its keys do.',
    )
  }

  private async knock(): Promise<void> {
    if (!this.hasPort)
      return this.say(
        'port',
        'note',
        'No port inside the tunnel was given to be tried',
        'ike-socket doctor HOST PORT tries one.',
      )
    const where = `${plain(this.target.host)} port ${this.target.port}`
    try {
      const error = await this.within(this.open!.connected, INNER)
      if (error === undefined)
        this.say('port', 'ok', `${where} inside the tunnel accepts connections`)
      else {
        const { says, cure } = partsOf(error)
        this.say(
          'port',
          'bad',
          says,
          cure ?? 'Start the service there, or connect to the port that it has.',
        )
      }
    } catch (error) {
      if (!(error instanceof TimeIsUp)) throw error
      const { packetsIn, packetsOut } = this.open!.session.info
      if (packetsIn === 0 && packetsOut > 0)
        return this.say(
          'port',
          'bad',
          `${where} inside the tunnel does not answer within ${INNER / 1000} s: IKE is answered, and of ESP ${packetsOut} packets went and none came`,
          'Look for a firewall on the way that passes IKE and not ESP in UDP, for one behind the gateway, and for the way back to our address inside the tunnel.',
        )
      this.say(
        'port',
        'bad',
        `${where} inside the tunnel does not answer within ${INNER / 1000} s`,
        'Look for a firewall behind the gateway, and for the way back to our address inside the tunnel.',
      )
    }
  }

  private async askForEverything(): Promise<void> {
    if (this.target.virtualAddress === true) return
    const child = await this.attempt({ mode: 'tunnel', localTs: EVERYTHING, remoteTs: EVERYTHING })
    if (child === undefined)
      this.say(
        'selectors',
        'note',
        'Asked for everything in tunnel mode, the peer gives nothing: it wants to be asked for what it has',
      )
    else
      this.say(
        'selectors',
        'ok',
        `Asked for everything, the peer gives ${child.localSelectors.join(' ')} here and ${child.remoteSelectors.join(' ')} there`,
      )
  }
}

/** The certificates that a peer has shown in vain, with the failing one marked. */
const shownParts = (error: unknown): readonly Part[] => {
  const { certificates } = (IpsecError.is(error) && error.details) || {}
  if (!Array.isArray(certificates)) return []
  return (certificates as readonly ShownCertificate[]).map(certificate => ({
    state: certificate.isFailing ? 'bad' : 'ok',
    says: `${certificate.subject}, issued by ${certificate.issuer}, valid from ${certificate.notBefore} to ${certificate.notAfter}`,
  }))
}

/** Of errors of the system, which bring none. */
const CURES: ReadonlyMap<string | undefined, string> = new Map([
  [
    'EADDRNOTAVAIL',
    'Set "localAddress" to an address of this host, or leave it out; in tunnel mode it is an address inside the tunnel.',
  ],
  ['EADDRINUSE', 'Another program has that port: leave "localPort" out.'],
  ['EACCES', 'The system or a policy of this program forbids it.'],
])

const METHODS: Readonly<Record<Session['authentication'], string>> = {
  psk: 'the pre-shared key',
  certificate: 'its certificate',
  rawKey: 'its public key',
  eap: 'EAP',
}

const upper = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1)

/** An IPv6 address may have its interface behind it. */
const isOfIpv6 = (address: string): boolean => isIPv6(address.split('%')[0]!)

const familyHint = (address: string): string =>
  isOfIpv6(address) ? ', and that it has this IPv6 address (else "family: 4")' : ''

const sizeWords = (found: Found): string => {
  if (found === 'not asked') return 'no size was tried (ike-socket alone fills its answers)'
  if (found === 'not found') return `nothing was found within ${SIZES / 1000} s`
  return found === 0 ? 'not even packets of 576 octets pass' : `packets of ${found} octets pass`
}

const describeReach = (reach: Reach): string =>
  reach.kind === 'answered'
    ? 'answers too'
    : reach.kind === 'refused'
      ? `is refused (${reach.code})`
      : `is silent for ${SILENCE / 1000} s`
