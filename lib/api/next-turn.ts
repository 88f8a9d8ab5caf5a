/**
 * What is to happen in the next turn of the event loop. All that asks for it in one turn shares an immediate: between two
 * of them Node runs the ticks, so each would send for itself what can share packets.
 */
let waiting: (() => void)[] = []

export const inNextTurn = (act: () => void): void => {
  if (waiting.push(act) === 1) setImmediate(runAll)
}

const runAll = (): void => {
  const acts = waiting
  waiting = []
  let done = 0
  try {
    for (const act of acts) {
      done++
      act()
    }
  } finally {
    // One has thrown.
    for (const act of acts.slice(done)) inNextTurn(act)
  }
}
