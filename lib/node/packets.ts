/**
 * Where datagrams are built. One is enough while the system copies what it is given at once; a datagram that it has not
 * taken yet stays as it is, in a packet that is used again only when its socket has none left to send.
 */
import { Packet } from '../base/packet.ts'
import type { Carrier } from './udp-socket.ts'

/** Ours: of 64 KiB each; a socket has one that waits, at most. */
const MOST_SPARE = 8

export class Packets {
  /** The next datagram is built here. */
  current = new Packet()
  private readonly spare: Packet[] = []
  private waiting: { readonly packet: Packet; readonly carrier: Pick<Carrier, 'isCongested'> }[] =
    []

  /** The datagram in `current` was handed to `carrier`; true: the system has not taken it yet. */
  noteSent(carrier: Pick<Carrier, 'isCongested'>): boolean {
    if (!carrier.isCongested) return false
    this.reclaim()
    this.waiting.push({ packet: this.current, carrier })
    this.current = this.spare.pop() ?? new Packet()
    return true
  }

  private reclaim(): void {
    this.waiting = this.waiting.filter(({ packet, carrier }) => {
      if (carrier.isCongested) return true
      if (this.spare.length < MOST_SPARE) this.spare.push(packet)
      return false
    })
  }
}
