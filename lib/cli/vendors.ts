/** Who a peer says it is made by: Vendor IDs are text, or hashes of text that only some are known of. */
import { plain } from './terminal.ts'

/** By the first octets, in hexadecimal digits. */
const KNOWN: readonly (readonly [string, string])[] = [
  ['882fe56d6fd20dbc2251613b2ebe5beb', 'strongSwan'],
  ['1e2b516905991c7d7c96fcbfb587e461', 'Windows'],
  ['8299031757a36082c6a621de', 'FortiGate'],
]

const isText = (octets: Uint8Array): boolean =>
  octets.length >= 4 && octets.every(octet => octet >= 0x20 && octet < 0x7f)

/** Those that are known or are text, each once. */
export const vendorNames = (vendors: readonly Uint8Array[]): string => {
  const names = vendors.flatMap(octets => {
    const digits = Buffer.from(octets).toString('hex')
    const known = KNOWN.find(([start]) => digits.startsWith(start))
    if (known !== undefined) return [known[1]]
    return isText(octets) ? [plain(Buffer.from(octets).toString('latin1')).slice(0, 40)] : []
  })
  return names.length === 0
    ? 'An IKEv2 peer that does not name its make'
    : [...new Set(names)].join(', ')
}
