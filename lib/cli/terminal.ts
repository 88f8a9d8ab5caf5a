/** What is printed for people: colours only on a terminal, text of peers that cannot steer it, short numbers. */
import type { WriteStream } from 'node:tty'

const COLOURS = { green: 32, red: 31, yellow: 33, dim: 2, bold: 1 } as const

export type Paint = (colour: keyof typeof COLOURS, text: string) => string

/** Colours on a terminal, unless NO_COLOR is set or the terminal is dumb; else the text as it is. */
export const painter = (stream: Pick<WriteStream, 'isTTY'>): Paint => {
  const { NO_COLOR, TERM } = process.env
  const isPlain = !stream.isTTY || (NO_COLOR !== undefined && NO_COLOR !== '') || TERM === 'dumb'
  return (colour, text) => (isPlain ? text : `\x1b[${COLOURS[colour]}m${text}\x1b[0m`)
}

/** Text that somebody else chose, without what a terminal would obey, at most 300 characters. */
export const plain = (text: unknown): string =>
  String(text)
    .slice(0, 300)
    .replace(/[^\x20-\x7e]/g, '?')

/** JSON whose control characters are all escaped: a terminal may obey those above U+007E, too. */
export const json = (value: unknown): string =>
  JSON.stringify(value).replace(
    /[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g,
    octet => `\\u${octet.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )

const UNITS = ['', 'k', 'M', 'G', 'T', 'P'] as const

/** 1234567 is `1.23 M`. */
export const short = (value: number): string => {
  let rest = value
  let unit = 0
  while (rest >= 999.5 && unit < UNITS.length - 1) {
    rest /= 1000
    unit++
  }
  const digits = rest >= 100 || unit === 0 ? 0 : rest >= 10 ? 1 : 2
  return `${rest.toFixed(digits)} ${UNITS[unit]!}`.trimEnd()
}

/** `1.23 MB`. */
export const octets = (value: number): string => {
  const text = short(value)
  return text.includes(' ') ? `${text}B` : `${text} B`
}

/** The two largest units: `3 h 4 min`. */
export const duration = (millis: number): string => {
  const seconds = Math.max(0, Math.round(millis / 1000))
  const parts = [
    [Math.floor(seconds / 86_400), 'd'],
    [Math.floor(seconds / 3600) % 24, 'h'],
    [Math.floor(seconds / 60) % 60, 'min'],
    [seconds % 60, 's'],
  ] as const
  const first = parts.findIndex(([count]) => count > 0)
  if (first < 0) return '0 s'
  return parts
    .slice(first, first + 2)
    .filter(([count]) => count > 0)
    .map(([count, unit]) => `${count} ${unit}`)
    .join(' ')
}

const BAR = 24
const FRAMES = ['|', '/', '-', '\\'] as const
/** Milliseconds: what is done sooner needs no bar. */
const PATIENCE = 1000

/** A bar on standard error while something takes longer than a second; nothing where that is no terminal. */
export class Progress {
  private readonly stream: WriteStream
  private readonly timer: NodeJS.Timeout | undefined
  private readonly start = performance.now()
  private words: string
  private share: number | undefined
  private isShown = false

  /** `share`: 0 to 1, or undefined where the end is not known. */
  constructor(words: string, share?: number, stream: WriteStream = process.stderr) {
    this.stream = stream
    this.words = words
    this.share = share
    if (!stream.isTTY) return
    this.timer = setInterval(() => this.draw(), 200).unref()
  }

  /** How far it is now. */
  update(words: string, share?: number): void {
    this.words = words
    this.share = share
  }

  private draw(): void {
    const took = performance.now() - this.start
    if (took < PATIENCE) return
    const { share } = this
    const full = Math.round((share ?? 0) * BAR)
    const gauge =
      share === undefined
        ? FRAMES[Math.floor(took / 200) % FRAMES.length]!
        : `[${'#'.repeat(full)}${'.'.repeat(BAR - full)}]`
    this.isShown = true
    this.stream.write(`\r\x1b[K${gauge} ${this.words} (${duration(took)})`)
  }

  /** Removes the bar, so that something else can be printed in its place. */
  clear(): void {
    if (this.isShown) this.stream.write('\r\x1b[K')
    this.isShown = false
  }

  /** It is done. */
  stop(): void {
    clearInterval(this.timer)
    this.clear()
  }
}
