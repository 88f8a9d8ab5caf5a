/**
 * MD4 (RFC 1320). Broken as a hash, and used for one thing only: MS-CHAP's hash of a password (RFC 2759 §8.3),
 * which OpenSSL 3 no longer offers.
 */

const rotate = (x: number, by: number): number => (x << by) | (x >>> (32 - by))

/** RFC 1320 §3.4: per round its function, constant, shifts and the order in which it takes the words. */
const ROUNDS: readonly {
  readonly mix: (x: number, y: number, z: number) => number
  readonly constant: number
  readonly shifts: readonly number[]
  readonly order: readonly number[]
}[] = [
  {
    mix: (x, y, z) => (x & y) | (~x & z),
    constant: 0,
    shifts: [3, 7, 11, 19],
    order: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
  },
  {
    mix: (x, y, z) => (x & y) | (x & z) | (y & z),
    constant: 0x5a827999,
    shifts: [3, 5, 9, 13],
    order: [0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15],
  },
  {
    mix: (x, y, z) => x ^ y ^ z,
    constant: 0x6ed9eba1,
    shifts: [3, 9, 11, 15],
    order: [0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15],
  },
]

export const md4 = (message: Uint8Array): Uint8Array => {
  // §3.1, §3.2: a one bit, zeros, the length in bits; all words are little-endian.
  const padded = new Uint8Array(((message.length + 8) >>> 6) * 64 + 64)
  padded.set(message)
  padded[message.length] = 0x80
  const view = new DataView(padded.buffer)
  view.setUint32(padded.length - 8, message.length << 3, true)
  view.setUint32(padded.length - 4, message.length >>> 29, true)

  const state = [0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476]
  for (let block = 0; block < padded.length; block += 64) {
    let [a, b, c, d] = state as [number, number, number, number]
    for (const { mix, constant, shifts, order } of ROUNDS) {
      for (let i = 0; i < 16; i++) {
        const word = view.getInt32(block + 4 * order[i]!, true)
        const next = rotate((a + mix(b, c, d) + word + constant) | 0, shifts[i & 3]!)
        ;[a, b, c, d] = [d, next, b, c]
      }
    }
    ;[a, b, c, d].forEach((word, i) => (state[i] = (state[i]! + word) | 0))
  }
  padded.fill(0)
  const digest = new Uint8Array(16)
  const out = new DataView(digest.buffer)
  state.forEach((word, i) => out.setInt32(4 * i, word, true))
  return digest
}
