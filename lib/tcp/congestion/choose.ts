/** The congestion controllers by name. */
import { Bbr } from './bbr.ts'
import type { CongestionController } from './controller.ts'
import { Cubic } from './cubic.ts'
import { Reno } from './reno.ts'

export const CONGESTION_CONTROLS = ['cubic', 'reno', 'bbr'] as const
/** How TCP finds its rate; see the option `congestionControl`. */
export type CongestionControl = (typeof CONGESTION_CONTROLS)[number]

export const newController = (name: CongestionControl): CongestionController =>
  name === 'reno' ? new Reno() : name === 'bbr' ? new Bbr() : new Cubic()
