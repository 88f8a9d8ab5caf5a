/**
 * Memory for octets that are kept a short while: pieces of all connections stand one behind the other in one large
 * block, which costs less than a buffer for each. A block is given up when it is full. Whoever then still has little
 * in it takes that elsewhere, so that a few octets which nobody reads keep no whole block alive.
 */
import { markAsUntransferable } from 'node:worker_threads'
import { Line, type InLine } from './line.ts'

const BLOCK = 1 << 20

/** Has octets in a block. */
export interface Tenant extends InLine<Tenant> {
  /** The block is given up. */
  moveOut(block: ArrayBufferLike): void
}

export class Slab {
  private block = new Uint8Array(0)
  private used = 0
  private tenants = new Line<Tenant>()

  /** A copy of the octets, of which `tenant` gets to know when its block is given up. */
  keep(octets: Uint8Array, tenant: Tenant): Uint8Array {
    const { length } = octets
    if (this.used + length > this.block.length) {
      // It would fill a block by itself.
      if (length > BLOCK / 4) return new Uint8Array(octets)
      this.renew()
    }
    const from = this.used
    this.used += length
    this.block.set(octets, from)
    this.tenants.add(tenant)
    return this.block.subarray(from, this.used)
  }

  private renew(): void {
    const { buffer } = this.block
    const { tenants } = this
    this.tenants = new Line()
    this.block = new Uint8Array(BLOCK)
    // What is read is handed out where it lies, and nobody may send away what belongs to others too.
    markAsUntransferable(this.block.buffer)
    this.used = 0
    for (let tenant = tenants.shift(); tenant; tenant = tenants.shift()) tenant.moveOut(buffer)
  }
}
