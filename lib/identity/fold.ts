/** Case of names in octets: the letters of ASCII alone are folded (RFC 4343 §3, RFC 5280 §7.5). */

const AT = 0x40

/** DNS names: the other octets stay as they are, since no two different ones are the same name. */
export const lowerCase = (octets: Uint8Array): Uint8Array =>
  octets.map(octet => (octet >= 0x41 && octet <= 0x5a ? octet | 0x20 : octet))

/** E-mail addresses: the host's part is folded, and the mailbox, up to the last `@`, is its host's affair. */
export const lowerCaseDomain = (octets: Uint8Array): Uint8Array => {
  const at = octets.lastIndexOf(AT)
  if (at < 0) return octets
  const folded = octets.slice()
  folded.set(lowerCase(octets.subarray(at)), at)
  return folded
}
