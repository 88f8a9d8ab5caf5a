/** Waits for something that real sockets bring about; the runner's own limit ends a wait in vain. */
import { setTimeout as wait } from 'node:timers/promises'

export const until = async (isSo: () => boolean): Promise<void> => {
  while (!isSo()) await wait(5)
}
