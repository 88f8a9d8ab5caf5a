/** After all ticks that wait, and all microtasks that follow from them: a tick that one of these asks for comes after them. */
export const afterTicks = (act: () => void): void =>
  process.nextTick(queueMicrotask, () => process.nextTick(act))
