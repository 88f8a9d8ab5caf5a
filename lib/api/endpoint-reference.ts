/** One user's hold on an endpoint: it keeps the process alive while the user is active and not `unref`ed. */
import type { Endpoint } from '../node/endpoint.ts'
import { openControlOnce } from './control.ts'

export class EndpointReference {
  private endpoint: Endpoint | undefined
  private isReferenced = true
  private isActive = true
  private isRequest = false
  /** The endpoint counts us. */
  private isCounted = false

  /** Holds this endpoint, and no other any more. */
  take(endpoint: Endpoint): void {
    if (this.endpoint === endpoint) return
    this.drop()
    openControlOnce()
    this.endpoint = endpoint
    this.settle()
  }

  drop(): void {
    const { endpoint } = this
    this.endpoint = undefined
    if (this.isCounted) endpoint?.unref()
    this.isCounted = false
  }

  ref(): void {
    this.isReferenced = true
    this.settle()
  }

  unref(): void {
    this.isReferenced = false
    this.settle()
  }

  /**
   * A user that waits for nothing does not hold the process, as a handle of libuv does not. `isRequest`: what it waits for
   * will be over by itself, and holds the process also where the user is not to, as a request of libuv does.
   */
  setActive(isActive: boolean, isRequest = false): void {
    if (this.isActive === isActive && this.isRequest === isRequest) return
    this.isActive = isActive
    this.isRequest = isRequest
    this.settle()
  }

  private settle(): void {
    const { endpoint } = this
    const counts = this.isRequest || (this.isReferenced && this.isActive)
    if (endpoint === undefined || counts === this.isCounted) return
    this.isCounted = counts
    if (counts) endpoint.ref()
    else endpoint.unref()
  }
}
