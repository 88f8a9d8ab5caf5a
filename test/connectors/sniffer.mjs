// tcpdump on the loopback, and what its packets are. Where it may not listen, the reason is an error of its own class.
import { spawn } from 'node:child_process'
import dgram from 'node:dgram'
import { once } from 'node:events'
import { find } from './servers.mjs'

/** For a busy machine. */
const SNIFFER_MS = 60_000
const PCAP_HEADER = 24
const RECORD_HEADER = 16
const ETHERNET_HEADER = 14
const IPV4 = 0x0800
const UDP = 17
const ICMP = 1
const ICMP_HEADER = 8
const LAST_WORDS = 'the sniffer has heard enough'

/** Nobody can listen on this machine: the message says why. */
export class CannotSniff extends Error {}

const within = (promise, what) => {
  let timer
  const late = new Promise((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} takes too long`)), SNIFFER_MS)
  })
  return Promise.race([promise, late]).finally(() => clearTimeout(timer))
}

/** The Ethernet frames of a capture file, as far as they are whole. */
const framesOf = file => {
  const frames = []
  if (file.length < PCAP_HEADER) return frames
  const isLittle = file.readUInt32LE(0) === 0xa1b2c3d4
  for (let at = PCAP_HEADER; at + RECORD_HEADER <= file.length;) {
    const length = isLittle ? file.readUInt32LE(at + 8) : file.readUInt32BE(at + 8)
    at += RECORD_HEADER
    if (at + length > file.length) break
    frames.push(file.subarray(at, at + length))
    at += length
  }
  return frames
}

/** What a datagram is: RFC 3948 §2 tells IKE, ESP and keepalives apart. */
const kindOfPayload = payload => {
  if (payload.length === 1 && payload[0] === 0xff) return 'keepalive'
  if (payload.length < 8) return 'a datagram that is too short'
  if (payload.readUInt32BE(0) !== 0) return 'ESP'
  // After the marker and two SPIs: the version, which is 2.0.
  return payload.length >= 32 && payload[21] === 0x20 ? 'IKE' : 'a datagram that is not IKE'
}

const kindOfPacket = (packet, ikePort) => {
  const [protocol, header] = [packet[9], (packet[0] & 15) * 4]
  // That nobody has a UDP port any more; it quotes the datagram.
  if (protocol === ICMP) {
    return `ICMP about ${kindOfPacket(packet.subarray(header + ICMP_HEADER), ikePort)}`
  }
  const [from, to] = [packet.readUInt16BE(header), packet.readUInt16BE(header + 2)]
  return protocol === UDP && (from === ikePort || to === ikePort)
    ? kindOfPayload(packet.subarray(header + 8))
    : `protocol ${protocol}, ports ${from} and ${to}`
}

/**
 * What a frame is, for one who knows no keys: 'IKE', 'ESP' or 'keepalive' when it is a datagram of that UDP port, 'ICMP
 * about' one of those, or else what stands in its headers.
 */
export const kindOf = (frame, ikePort) => {
  const type = frame.readUInt16BE(ETHERNET_HEADER - 2)
  return type === IPV4
    ? kindOfPacket(frame.subarray(ETHERNET_HEADER), ikePort)
    : `ethertype ${type.toString(16)}`
}

/**
 * Listens to all that goes to or from those addresses of the loopback; resolves when it does so.
 * Its result ends it and resolves with the frames.
 */
export const sniff = async addresses => {
  const program = find('tcpdump')
  if (program === undefined) throw new CannotSniff('tcpdump is missing')
  const filter = addresses.map(address => `host ${address}`).join(' or ')
  const words = ['-i', 'lo', '-n', '-U', '--immediate-mode', '-B', '16384', '-w', '-', filter]
  const child = spawn(program, words, { stdio: ['ignore', 'pipe', 'pipe'] })
  const closed = once(child, 'close')
  const pieces = []
  let said = ''
  child.stdout.on('data', piece => pieces.push(piece))
  const listening = new Promise(resolve => {
    child.stderr.setEncoding('utf8').on('data', text => {
      said += text
      if (said.includes('listening on')) resolve(true)
    })
  })
  const isListening = await within(Promise.race([listening, closed.then(() => false)]), 'tcpdump')
  if (!isListening) throw new CannotSniff(said.trim().replaceAll(/\s+/g, ' '))

  const stop = async () => {
    child.kill('SIGINT')
    await within(closed, 'the end of tcpdump')
  }
  const finish = async () => {
    // What came before it has been written when this one has.
    const socket = dgram.createSocket('udp4')
    socket.send(LAST_WORDS, 9, addresses[0])
    let frames
    try {
      const isHeard = () =>
        pieces.length > 0 &&
        framesOf(Buffer.concat(pieces)).some(frame => frame.includes(LAST_WORDS))
      const heard = (async () => {
        while (!isHeard()) await once(child.stdout, 'data')
      })()
      await within(heard, 'the last packet')
      frames = framesOf(Buffer.concat(pieces))
    } finally {
      socket.close()
      await stop()
    }
    const dropped = /(\d+) packets? dropped by kernel/.exec(said)?.[1]
    if (dropped !== '0') throw new Error(`tcpdump has lost packets: ${said}`)
    return frames.slice(
      0,
      frames.findIndex(frame => frame.includes(LAST_WORDS)),
    )
  }
  return { finish, stop }
}
