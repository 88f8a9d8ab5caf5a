/** A way between a client and a server on the loopback that loses what a test says. */
import dgram from 'node:dgram'
import { once } from 'node:events'

export type Direction = 'there' | 'back'

export interface Way {
  readonly port: number
  close(): void
}

/** IKE in UDP encapsulation begins with a marker of zeros (RFC 3948 §2.2). */
export const isIke = (bytes: Buffer): boolean => bytes.length > 4 && bytes.readUInt32BE(0) === 0

/** Octets of the IPv4 packet that such a datagram makes. */
export const packetOf = (bytes: Buffer): number => bytes.length + 28

/** Relays to that UDP port what `passes`, after `delay` milliseconds; a client gets a port of its own, as behind a NAT. */
export const openWay = async (
  serverPort: number,
  passes: (bytes: Buffer, direction: Direction) => boolean,
  delay = 0,
): Promise<Way> => {
  let isOpen = true
  const later = (send: () => void): void => {
    if (delay === 0) send()
    else setTimeout(() => isOpen && send(), delay)
  }
  const front = dgram.createSocket('udp4').bind(0, '127.0.0.1')
  await once(front, 'listening')
  const backs = new Map<number, dgram.Socket>()
  front.on('message', (bytes, client) => {
    if (!passes(bytes, 'there')) return
    let back = backs.get(client.port)
    if (back === undefined) {
      back = dgram.createSocket('udp4')
      back.on('message', answer => {
        if (passes(answer, 'back')) later(() => front.send(answer, client.port, client.address))
      })
      backs.set(client.port, back)
    }
    const to = back
    later(() => to.send(bytes, serverPort, '127.0.0.1'))
  })
  const close = (): void => {
    isOpen = false
    for (const socket of [front, ...backs.values()]) socket.close()
  }
  return { port: front.address().port, close }
}
