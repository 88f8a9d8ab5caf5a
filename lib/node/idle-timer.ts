/** The idle time of a socket: restarted by traffic, cheap to restart, and no reason for a process to stay. */

export class IdleTimer {
  private readonly expired: () => void
  private timer: NodeJS.Timeout | undefined

  constructor(expired: () => void) {
    this.expired = expired
  }

  /** Milliseconds; 0: off. */
  set(milliseconds: number): void {
    this.clear()
    if (milliseconds > 0) {
      this.timer = setTimeout(this.expired, Math.min(milliseconds, 2 ** 31 - 1)).unref()
    }
  }

  refresh(): void {
    this.timer?.refresh()
  }

  clear(): void {
    clearTimeout(this.timer)
    this.timer = undefined
  }
}
