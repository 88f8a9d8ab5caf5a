/** Inbound SPIs: which are taken, and fresh ones nobody can guess (RFC 4303 §2.1). */
import { getU32 } from '../base/bytes.ts'
import { drawSpi, type Environment } from '../base/environment.ts'
import { FIRST_SPI } from '../wire/esp.ts'

export class Sad<Entry> {
  private readonly entries = new Map<number, Entry | undefined>()

  /** Reserves an SPI; nothing is routed to it before `install`. */
  allocate(environment: Environment): number {
    for (;;) {
      const spi = getU32(drawSpi(environment, 4), 0)
      if (spi < FIRST_SPI || this.entries.has(spi)) continue
      this.entries.set(spi, undefined)
      return spi
    }
  }

  install(spi: number, entry: Entry): void {
    this.entries.set(spi, entry)
  }

  lookup(spi: number): Entry | undefined {
    return this.entries.get(spi)
  }

  has(spi: number): boolean {
    return this.entries.has(spi)
  }

  release(spi: number): void {
    this.entries.delete(spi)
  }

  get size(): number {
    return this.entries.size
  }
}
