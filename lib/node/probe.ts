/** Sends a probe to one UDP port and waits for what comes back: an answer, a refusal by ICMP, or nothing. */
import { createSocket } from 'node:dgram'
import { isIPv6 } from 'node:net'
import { parseAddress } from '../base/address.ts'
import { EMPTY } from '../base/bytes.ts'
import type { Millis } from '../base/environment.ts'
import { Probe, type Oddity, type ProbeAnswer } from '../core/probe.ts'
import { systemEnvironment } from './environment.ts'

type Policy = ConstructorParameters<typeof Probe>[0]
type Credentials = ConstructorParameters<typeof Probe>[1]

export type Reach = {
  /** Our address on the way there; undefined: the system knows no way. */
  readonly source: string | undefined
  readonly milliseconds: Millis
} &
  /** `repeats`: so many times the request was sent again before. */
  (
    | { readonly kind: 'answered'; readonly answer: ProbeAnswer; readonly repeats: number }
    /** `code`: of the system, such as ECONNREFUSED. */
    | { readonly kind: 'refused'; readonly code: string }
    /** `oddities`: of the datagrams that came and are no answer, what each is. `packet`: octets of the request's IP packet. */
    | { readonly kind: 'silent'; readonly oddities: readonly Oddity[]; readonly packet: number }
  )

/** A server of junk is not listened to for longer. */
const MOST_ODDITIES = 8
/** Headers of UDP and IP. */
const OUTER = { udp4: 28, udp6: 48 }

/** Waits before the request is sent again. */
const REPEATS = [500, 1000, 1500] as const

export interface ProbeTarget {
  readonly policy: Policy
  readonly credentials: Credentials
  readonly address: string
  readonly port: number
  /** Milliseconds until it counts as silent. */
  readonly timeout: Millis
}

export const probePort = ({
  policy,
  credentials,
  address,
  port,
  timeout,
}: ProbeTarget): Promise<Reach> =>
  new Promise(resolve => {
    const start = performance.now()
    const family = isIPv6(address.split('%')[0]!) ? 'udp6' : 'udp4'
    const socket = createSocket(family)
    let source: string | undefined
    let probe: Probe | undefined
    let repeat: NodeJS.Timeout | undefined
    let isOver = false
    let repeats = 0
    let packet = 0
    const oddities: Oddity[] = []
    const finish = (
      outcome:
        | { kind: 'answered'; answer: ProbeAnswer; repeats: number }
        | { kind: 'refused'; code: string }
        | { kind: 'silent'; oddities: readonly Oddity[]; packet: number },
    ): void => {
      if (isOver) return
      isOver = true
      clearTimeout(limit)
      clearTimeout(repeat)
      probe?.wipe()
      socket.close()
      resolve({ ...outcome, source, milliseconds: performance.now() - start })
    }
    const limit = setTimeout(() => finish({ kind: 'silent', oddities, packet }), timeout)
    const fail = (error: NodeJS.ErrnoException | null | undefined): void => {
      if (error) finish({ kind: 'refused', code: error.code ?? 'EIO' })
    }
    const send = (): void => {
      if (isOver) return
      const datagram = probe!.datagram()
      packet = datagram.length + OUTER[family]
      socket.send(datagram, fail)
    }
    const sendAgain = (at: number): void => {
      const wait = REPEATS[at]
      if (wait === undefined) return
      repeat = setTimeout(() => {
        repeats++
        send()
        sendAgain(at + 1)
      }, wait)
    }
    socket.on('error', fail)
    socket.on('message', message => {
      // A Buffer's slice() shares memory, a Uint8Array's copies.
      const answer = probe?.read(new Uint8Array(message))
      if (answer === 'again') send()
      else if (typeof answer === 'object') finish({ kind: 'answered', answer, repeats })
      else if (answer !== undefined && oddities.length < MOST_ODDITIES) oddities.push(answer)
    })
    socket.connect(port, address, (error?: Error) => {
      if (error) return fail(error)
      if (isOver) return
      const local = socket.address()
      source = local.address.split('%')[0]!
      probe = new Probe(policy, credentials, systemEnvironment, {
        socket: 0,
        localAddress: parseAddress(source) ?? EMPTY,
        localPort: local.port,
        remoteAddress: parseAddress(address.split('%')[0]!)!,
        remotePort: port,
        isUnmarked: port === 500,
      })
      send()
      sendAgain(0)
    })
  })
