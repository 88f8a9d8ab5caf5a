import { afterTicks } from '../node/after-ticks.ts'

type Act = () => void

/** In a row; if one throws, `onRest` gets those that follow. */
const runAll = (acts: readonly Act[], onRest: (act: Act) => void): void => {
  let done = 0
  try {
    for (const act of acts) {
      done++
      act()
    }
  } finally {
    // One has thrown.
    for (const act of acts.slice(done)) onRest(act)
  }
}

let waiting: Act[] = []

/**
 * What is to happen in the next turn of the event loop. All that asks for it in one turn shares an immediate: between two
 * of them Node runs the ticks, so each would send for itself what can share packets.
 */
export const inNextTurn = (act: Act): void => {
  if (waiting.push(act) > 1) return
  setImmediate(() => {
    const acts = waiting
    waiting = []
    runAll(acts, inNextTurn)
  })
}

/** By stages; between two of them the program does what follows. */
type Stages = readonly [ends: Act[], finishes: Act[], closes: Act[]]

let coming: Stages | undefined
let current: Stages | undefined
let stage = 0

const runStage = (number: number): void => {
  if (number === 0) {
    current = coming
    coming = undefined
  }
  const acts = current![number]!
  stage = number
  if (number === 2) current = undefined
  runAll(acts, inNextTurn)
}

/**
 * Of net, 'end' comes from one call of libuv, 'finish' from the next, and 'close' ends the same turn. So `act`, which
 * tells of an end in the next turn, may be followed there by the two others.
 */
export const inEndingTurn = (act: Act): void => {
  if (coming === undefined) {
    coming = [[], [], []]
    for (const number of coming.keys()) setImmediate(runStage, number)
  }
  coming[0].push(act)
}

/** What follows from an end: in the turn of it, or in the next one. */
export const atFinish = (act: Act): void => {
  if (current !== undefined && stage === 0) current[1].push(act)
  else inNextTurn(act)
}

/** Where sockets are closed that are about to be destroyed by their ends. */
export interface ClosePlace {
  /** Undefined: it is over. */
  acts: Act[] | undefined
}

let next: ClosePlace | undefined

/**
 * Libuv tells that a handle is closed after the immediates of a turn. So 'close' comes with an immediate after those that
 * the program sets in the ticks and microtasks that wait by now.
 */
export const expectClose = (): ClosePlace => {
  if (next !== undefined) return next
  const place: ClosePlace = { acts: [] }
  next = place
  afterTicks(() => {
    next = undefined
    setImmediate(() => {
      const { acts } = place
      place.acts = undefined
      runAll(acts!, setImmediate)
    })
  })
  return place
}

/** In that place, in the turn of an end, or in the next one. */
export const atClose = (place: ClosePlace | undefined, act: Act): void => {
  if (place?.acts !== undefined) place.acts.push(act)
  else if (current !== undefined) current[2].push(act)
  else setImmediate(act)
}
