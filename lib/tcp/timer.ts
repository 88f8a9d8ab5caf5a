/** The timers that a connection has. */

export const Timer = {
  Retransmit: 0,
  Reorder: 1,
  Persist: 2,
  DelayedAck: 3,
  KeepAlive: 4,
  Wait: 5,
  Pacing: 6,
  User: 7,
  Rest: 8,
} as const

export const TIMERS = 9
