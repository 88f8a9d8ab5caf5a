/** A certificate authority for tests: keys are made anew in each run, names and dates are those asked for. */
import { createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto'
import {
  buildCertificate,
  buildCrl,
  toPem,
  type CertificateFacts,
} from '../../lib/identity/certificate-builder.ts'
import { KeyPurpose, KeyUsage } from '../../lib/identity/extensions.ts'

export type KeyType = 'ed25519' | 'ed448' | 'P-256' | 'P-384' | 'P-521' | 'rsa'

export const newKey = (type: KeyType): KeyObject => {
  if (type === 'ed25519') return generateKeyPairSync('ed25519').privateKey
  if (type === 'ed448') return generateKeyPairSync('ed448').privateKey
  if (type === 'rsa') return generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey
  return generateKeyPairSync('ec', { namedCurve: type }).privateKey
}

export interface Credential {
  readonly subject: string
  readonly key: KeyObject
  readonly der: Uint8Array
  readonly pem: string
  readonly keyPem: string
}

const DAY = 86_400_000
let serials = 1

/** Signed by `issuer`, or by itself. Valid from yesterday for a month unless `facts` says otherwise. */
export const certificate = (
  subject: string,
  type: KeyType,
  issuer: Credential | undefined,
  facts: Partial<CertificateFacts> = {},
): Credential => {
  const key = newKey(type)
  const now = Date.now()
  const serial = Uint8Array.of(0x10, serials >>> 8, serials++)
  const der = buildCertificate(
    {
      subject,
      publicKey: createPublicKey(key),
      serial,
      notBefore: now - DAY,
      notAfter: now + 30 * DAY,
      keyUsage: [KeyUsage.DigitalSignature],
      ...facts,
    },
    issuer ?? { subject, key },
  )
  const keyPem = key.export({ type: 'pkcs8', format: 'pem' }) as string
  return { subject, key, der, pem: toPem('CERTIFICATE', der), keyPem }
}

export const authority = (
  subject: string,
  type: KeyType,
  issuer?: Credential,
  facts: Partial<CertificateFacts> = {},
): Credential =>
  certificate(subject, type, issuer, {
    authority: {},
    keyUsage: [KeyUsage.KeyCertSign, KeyUsage.CrlSign],
    ...facts,
  })

/** Of a host or a user, for IKE and TLS in both roles. */
export const endEntity = (
  name: string,
  type: KeyType,
  issuer: Credential,
  facts: Partial<CertificateFacts> = {},
): Credential =>
  certificate(`O=Test, CN=${name}`, type, issuer, {
    extendedKeyUsage: [KeyPurpose.IpsecIke, KeyPurpose.ServerAuth, KeyPurpose.ClientAuth],
    names: name.includes('@') ? { email: [name] } : { dns: [name] },
    ...facts,
  })

/** In PEM; `revoked` are serial numbers. */
export const crlOf = (
  issuer: Credential,
  revoked: readonly Uint8Array[] = [],
  nextUpdate = Date.now() + 7 * DAY,
): string => {
  const now = Date.now()
  const list = revoked.map(serial => ({ serial, at: now - DAY / 2 }))
  const facts = { thisUpdate: nextUpdate - 8 * DAY, nextUpdate, number: 1, revoked: list }
  return toPem('X509 CRL', buildCrl(facts, issuer))
}
