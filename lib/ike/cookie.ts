/**
 * Stateless cookies (RFC 7296 §2.6): a MAC over what the initiator must repeat, under a secret that
 * changes. The secret before stays good for one period, so a cookie never dies in flight.
 */
import { concat, equal } from '../base/bytes.ts'
import { randomBytes, type Environment, type Millis } from '../base/environment.ts'
import type { Path } from '../base/path.ts'
import { computeHmac } from '../crypto/prf.ts'
import { HashAlgorithm } from '../wire/registry.ts'

const SECRET_LENGTH = 32
const COOKIE_LENGTH = 16
const ROTATION: Millis = 60_000

export class CookieJar {
  private readonly environment: Environment
  private secret: Uint8Array
  private previous: Uint8Array
  private version = 0
  private rotateAt: Millis = -Infinity

  constructor(environment: Environment) {
    this.environment = environment
    this.secret = randomBytes(environment, SECRET_LENGTH)
    this.previous = randomBytes(environment, SECRET_LENGTH)
  }

  make(nonce: Uint8Array, spiI: Uint8Array, path: Path, now: Millis): Uint8Array {
    this.rotate(now)
    return this.compute(this.secret, this.version, nonce, spiI, path)
  }

  accepts(
    cookie: Uint8Array,
    nonce: Uint8Array,
    spiI: Uint8Array,
    path: Path,
    now: Millis,
  ): boolean {
    this.rotate(now)
    const age = (this.version - (cookie[0] ?? 0)) & 0xff
    if (age > 1) return false
    const secret = age === 0 ? this.secret : this.previous
    return equal(cookie, this.compute(secret, this.version - age, nonce, spiI, path))
  }

  private compute(
    secret: Uint8Array,
    version: number,
    nonce: Uint8Array,
    spiI: Uint8Array,
    path: Path,
  ): Uint8Array {
    const port = Uint8Array.of(path.remotePort >>> 8, path.remotePort)
    const parts = [nonce, path.remoteAddress, port, spiI]
    const mac = computeHmac('node', HashAlgorithm.Sha2_256, secret, parts)
    return concat(Uint8Array.of(version & 0xff), mac.subarray(0, COOKIE_LENGTH))
  }

  private rotate(now: Millis): void {
    if (now < this.rotateAt) return
    this.rotateAt = now + ROTATION
    this.previous = this.secret
    this.secret = randomBytes(this.environment, SECRET_LENGTH)
    this.version++
  }
}
