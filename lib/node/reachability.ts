/**
 * Whether the system knows a way to a host. A router's answer that there is none is told by Linux to a
 * connection of TCP, but not to a UDP socket of `dgram`, connected or not; so a silent peer is also called by TCP.
 */
import { plainConnect } from './plain-connect.ts'

/** What ICMP says of a host or network (RFC 792); all else may be meant for TCP alone. */
const UNREACHABLE: ReadonlySet<string> = new Set(['EHOSTDOWN', 'EHOSTUNREACH', 'ENETUNREACH'])
/** ARP and neighbour discovery give up after three seconds. */
const TIMEOUT = 4000

let isForbidden = false

/** From now on nobody is called by TCP: the process has promised that nothing but IKE and ESP goes out. */
export const neverAskForWay = (): void => void (isForbidden = true)

/**
 * `unreachable` gets the system's code when it says that the host is not reached; anything else means nothing.
 * `done` follows in any case. The returned function ends the question.
 */
export const askForWay = (
  host: string,
  port: number,
  unreachable: (code: string) => void,
  done: () => void,
): (() => void) => {
  if (isForbidden) {
    done()
    return () => undefined
  }
  const socket = plainConnect({ host, port })
  socket.unref()
  const timer = setTimeout(() => socket.destroy(), TIMEOUT)
  timer.unref()
  socket.on('connect', () => socket.destroy())
  socket.on('error', ({ code }: NodeJS.ErrnoException) => {
    if (code !== undefined && UNREACHABLE.has(code)) unreachable(code)
  })
  socket.on('close', () => {
    clearTimeout(timer)
    done()
  })
  return () =>
    void socket
      .removeAllListeners('error')
      .on('error', () => {})
      .destroy()
}
