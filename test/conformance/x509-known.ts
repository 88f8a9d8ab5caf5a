/** Where the public suites of certificate tests lie, and what they refuse that a verifier of IKE need not refuse. */

export const FOLDER = '../shared/x509'

/** By the beginning of the case's name. */
const NOT_APPLICABLE: Readonly<Record<string, string>> = {
  'webpki::aki::root-with-aki':
    'RFC 5280 §6.1: an anchor is a name and a key; its key identifiers do not matter',
  'webpki::cn::': 'RFC 4945 §3.1: the common name is never looked at',
  'webpki::eku::': 'RFC 4945 §5.1.3.12: anyExtendedKeyUsage, none, or a critical one will do',
  'webpki::san::public-suffix-': 'a list of public suffixes is for browsers',
  'webpki::san::san-critical-with-nonempty-subject': 'RFC 5280 §4.2.1.6: a SHOULD for issuers',
  'webpki::forbidden-rsa-': 'CA/Browser Forum: moduli divisible by 8',
  'webpki::ee-basicconstraints-ca':
    'CA/Browser Forum: an end entity that is a CA without the right to sign certificates',
  'rfc5280::san::underscore-dns': 'hosts have such names in DNS, whatever RFC 1034 §3.5 says',
  'boringssl::target-eku-any/mlsclientauth': 'a profile of MLS',
  'boringssl::target-eku-none/mlsclientauth': 'a profile of MLS',
}

/** Why the case need not be refused; undefined: it must be. */
export const notApplicable = (id: string): string | undefined =>
  Object.entries(NOT_APPLICABLE).find(([prefix]) => id.startsWith(prefix))?.[1]
