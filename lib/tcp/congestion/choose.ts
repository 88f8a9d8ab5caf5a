/** The congestion controllers by name. */
import type { CongestionController } from './controller.ts'
import { Cubic } from './cubic.ts'
import { Reno } from './reno.ts'

export const CONGESTION_CONTROLS = ['cubic', 'reno'] as const
export type CongestionControl = (typeof CONGESTION_CONTROLS)[number]

export const newController = (name: CongestionControl): CongestionController =>
  name === 'reno' ? new Reno() : new Cubic()
