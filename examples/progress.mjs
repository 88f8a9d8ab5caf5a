// A bar on standard error for whatever takes longer than a second: only on a terminal, and gone at the end.
const WIDTH = 24
const PATIENCE = 1000

/** `update(share)`: how far it is, 0 to 1; `stop()`: it is done. */
export const progress = (words, stream = process.stderr) => {
  if (!stream.isTTY) return { update: () => {}, stop: () => {} }
  const start = performance.now()
  let shown = 0
  return {
    update(share, text = words) {
      const now = performance.now()
      if (now - start < PATIENCE || now - shown < 100) return
      shown = now
      const full = Math.min(WIDTH, Math.round(share * WIDTH))
      const bar = '#'.repeat(full) + '.'.repeat(WIDTH - full)
      stream.write(`\r\x1b[K[${bar}] ${text}, ${Math.round((now - start) / 1000)} s`)
    },
    stop() {
      if (shown > 0) stream.write('\r\x1b[K')
    },
  }
}
