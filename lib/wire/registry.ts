/**
 * Numbers of the IANA "IKEv2 Parameters" registry and of the protocols around it, under the names of
 * their RFCs. Only what this package reads, writes or explains.
 */

export const PayloadType = {
  None: 0,
  Sa: 33,
  Ke: 34,
  IdI: 35,
  IdR: 36,
  Cert: 37,
  CertReq: 38,
  Auth: 39,
  Nonce: 40,
  Notify: 41,
  Delete: 42,
  VendorId: 43,
  TsI: 44,
  TsR: 45,
  Encrypted: 46,
  Configuration: 47,
  Eap: 48,
  EncryptedFragment: 53,
} as const

export const ExchangeType = {
  IkeSaInit: 34,
  IkeAuth: 35,
  CreateChildSa: 36,
  Informational: 37,
  IkeIntermediate: 43,
} as const

export const ProtocolId = { None: 0, Ike: 1, Ah: 2, Esp: 3 } as const

export const TransformType = { Encr: 1, Prf: 2, Integ: 3, Ke: 4, Esn: 5 } as const

export const AttributeType = { KeyLength: 14 } as const

export const Encr = {
  Des3: 3,
  Null: 11,
  AesCbc: 12,
  AesCtr: 13,
  AesCcm16: 16,
  AesGcm8: 18,
  AesGcm12: 19,
  AesGcm16: 20,
  Chacha20Poly1305: 28,
} as const

/** A cipher that brings its own integrity (RFC 7296 §3.3.2). */
export const isAead = (encr: number): boolean =>
  encr === Encr.AesGcm16 || encr === Encr.Chacha20Poly1305

export const Prf = { HmacSha1: 2, HmacSha2_256: 5, HmacSha2_384: 6, HmacSha2_512: 7 } as const

export const Integ = {
  None: 0,
  HmacSha1_96: 2,
  HmacSha2_256_128: 12,
  HmacSha2_384_192: 13,
  HmacSha2_512_256: 14,
} as const

export const KeGroup = {
  None: 0,
  Modp1024: 2,
  Modp1536: 5,
  Modp2048: 14,
  Modp3072: 15,
  Modp4096: 16,
  P256: 19,
  P384: 20,
  P521: 21,
  X25519: 31,
  X448: 32,
  MlKem512: 35,
  MlKem768: 36,
  MlKem1024: 37,
} as const

export const Esn = { No: 0, Yes: 1 } as const

export const IdType = {
  Ipv4: 1,
  Fqdn: 2,
  Rfc822: 3,
  Ipv6: 5,
  DerDn: 9,
  DerGn: 10,
  KeyId: 11,
} as const

export const CertEncoding = {
  X509Signature: 4,
  Crl: 7,
  HashAndUrlX509: 12,
  HashAndUrlBundle: 13,
  OcspContent: 14,
  RawPublicKey: 15,
} as const

export const AuthMethod = {
  Rsa: 1,
  SharedKey: 2,
  Dss: 3,
  Ecdsa256: 9,
  Ecdsa384: 10,
  Ecdsa521: 11,
  NullAuth: 13,
  DigitalSignature: 14,
} as const

export const HashAlgorithm = {
  Sha1: 1,
  Sha2_256: 2,
  Sha2_384: 3,
  Sha2_512: 4,
  Identity: 5,
} as const

export const CpType = { Request: 1, Reply: 2, Set: 3, Ack: 4 } as const

export const CpAttribute = {
  InternalIp4Address: 1,
  InternalIp4Netmask: 2,
  InternalIp4Dns: 3,
  InternalIp4Nbns: 4,
  InternalIp4Dhcp: 6,
  ApplicationVersion: 7,
  InternalIp6Address: 8,
  InternalIp6Dns: 10,
  InternalIp6Dhcp: 12,
  InternalIp4Subnet: 13,
  SupportedAttributes: 14,
  InternalIp6Subnet: 15,
} as const

export const TrafficSelectorType = { Ipv4Range: 7, Ipv6Range: 8 } as const

export const IpProtocol = {
  Any: 0,
  Icmp: 1,
  Ipv4: 4,
  Tcp: 6,
  Udp: 17,
  Ipv6: 41,
  Icmpv6: 58,
  NoNext: 59,
  /** For experiments (RFC 3692 §2.1); ours are in `bundle.ts`. */
  Experiment: 253,
} as const

/** Error types are below 16384 (RFC 7296 §3.10.1). */
export const FIRST_STATUS_NOTIFY = 16384

export const NotifyType = {
  UnsupportedCriticalPayload: 1,
  InvalidIkeSpi: 4,
  InvalidMajorVersion: 5,
  InvalidSyntax: 7,
  InvalidMessageId: 9,
  InvalidSpi: 11,
  NoProposalChosen: 14,
  InvalidKePayload: 17,
  AuthenticationFailed: 24,
  SinglePairRequired: 34,
  NoAdditionalSas: 35,
  InternalAddressFailure: 36,
  FailedCpRequired: 37,
  TsUnacceptable: 38,
  InvalidSelectors: 39,
  UnacceptableAddresses: 40,
  UnexpectedNatDetected: 41,
  TemporaryFailure: 43,
  ChildSaNotFound: 44,
  InvalidGroupId: 45,
  AuthorizationFailed: 46,
  StateNotFound: 47,
  TsMaxQueue: 48,
  InitialContact: 16384,
  SetWindowSize: 16385,
  AdditionalTsPossible: 16386,
  IpcompSupported: 16387,
  NatDetectionSourceIp: 16388,
  NatDetectionDestinationIp: 16389,
  Cookie: 16390,
  UseTransportMode: 16391,
  HttpCertLookupSupported: 16392,
  RekeySa: 16393,
  EspTfcPaddingNotSupported: 16394,
  NonFirstFragmentsAlso: 16395,
  MobikeSupported: 16396,
  AdditionalIp4Address: 16397,
  AdditionalIp6Address: 16398,
  NoAdditionalAddresses: 16399,
  UpdateSaAddresses: 16400,
  Cookie2: 16401,
  NoNatsAllowed: 16402,
  AuthLifetime: 16403,
  MultipleAuthSupported: 16404,
  AnotherAuthFollows: 16405,
  RedirectSupported: 16406,
  Redirect: 16407,
  RedirectedFrom: 16408,
  EapOnlyAuthentication: 16417,
  ChildlessIkev2Supported: 16418,
  QcdToken: 16419,
  Ikev2MessageIdSyncSupported: 16420,
  Ikev2FragmentationSupported: 16430,
  SignatureHashAlgorithms: 16431,
  UsePpk: 16435,
  PpkIdentity: 16436,
  NoPpkAuth: 16437,
  IntermediateExchangeSupported: 16438,
  AdditionalKeyExchange: 16441,
  UseAggfrag: 16442,
  SupportedAuthMethods: 16443,
  SaResourceInfo: 16444,
  UsePpkInt: 16445,
  PpkIdentityKey: 16446,
  /** Ours, private use (RFC 7296 §3.10.1): in IKE_AUTH, the SPIs of the IKE SA that this one will replace. */
  Reauthenticates: 40960,
  /** Ours too: in IKE_AUTH, what this end can do inside the SA (`own-features.ts`). */
  OwnFeatures: 40961,
  /** Ours too: room in a message that probes a path (`filler.ts`). */
  Filler: 40962,
} as const

/** The name of a number in one of the tables above, else the number. */
export const nameOf = (registry: Readonly<Record<string, number>>, value: number): string => {
  for (const [name, known] of Object.entries(registry)) {
    if (known === value) return name
  }
  return String(value)
}

/** The registry's spelling of a notify type, for example AUTHENTICATION_FAILED. */
export const notifyName = (type: number): string => registryName(NotifyType, type, 'NOTIFY')

/** The registry's spelling of an exchange type, for example IKE_SA_INIT. */
export const exchangeName = (type: number): string => registryName(ExchangeType, type, 'EXCHANGE')

const registryName = (
  registry: Readonly<Record<string, number>>,
  value: number,
  kind: string,
): string => {
  const name = nameOf(registry, value)
  return name === String(value)
    ? `${kind}_${value}`
    : name.replace(/(?<=[a-z0-9])[A-Z]/g, '_$&').toUpperCase()
}
