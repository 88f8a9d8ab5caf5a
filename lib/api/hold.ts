/** One user's hold on an endpoint: it keeps the process alive, unless that user was `unref`ed. */
import type { Endpoint } from '../node/endpoint.ts'

export class Hold {
  private endpoint: Endpoint | undefined
  private isReferenced = true

  /** Holds this endpoint, and no other any more. */
  take(endpoint: Endpoint): void {
    if (this.endpoint === endpoint) return
    this.drop()
    this.endpoint = endpoint
    if (this.isReferenced) endpoint.ref()
  }

  drop(): void {
    if (this.isReferenced) this.endpoint?.unref()
    this.endpoint = undefined
  }

  ref(): void {
    if (!this.isReferenced) this.endpoint?.ref()
    this.isReferenced = true
  }

  unref(): void {
    if (this.isReferenced) this.endpoint?.unref()
    this.isReferenced = false
  }
}
