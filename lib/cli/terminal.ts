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

const SEQUENCE = /\x1b\[[0-9;]*m/y

/** The first `columns` characters of a line; sequences of colour take no room, and end with it. */
export const cut = (line: string, columns: number): string => {
  let shown = ''
  let width = 0
  for (let at = 0; at < line.length;) {
    SEQUENCE.lastIndex = at
    const sequence = SEQUENCE.exec(line)?.[0]
    if (sequence === undefined && ++width > columns) return `${shown}\x1b[0m`
    shown += sequence ?? line[at]
    at += sequence?.length ?? 1
  }
  return shown
}

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const

/**
 * Text that is drawn again and again in one place: on the terminal's other screen, so that no line breaks and no
 * resizing leaves anything behind. `close` gives the screen and the cursor back, as do SIGINT, SIGTERM and SIGHUP.
 */
export class Screen {
  private readonly stream: WriteStream
  private readonly onEnd: () => void
  private lines: readonly string[] = []
  private isOpen = true
  private readonly draw = (): void => {
    const { rows, columns } = this.stream
    const lines = this.lines.slice(0, Math.max(1, rows - 1)).map(line => cut(line, columns))
    this.stream.write(`\x1b[H\x1b[J${lines.join('\n')}\n`)
  }
  private readonly leave = (): void => {
    this.close()
    this.onEnd()
  }

  /** `onEnd`: the user has ended it. */
  constructor(stream: WriteStream, onEnd: () => void) {
    this.stream = stream
    this.onEnd = onEnd
    stream.write('\x1b[?1049h\x1b[?25l')
    stream.on('resize', this.draw)
    for (const signal of SIGNALS) process.once(signal, this.leave)
  }

  show(lines: readonly string[]): void {
    this.lines = lines
    if (this.isOpen) this.draw()
  }

  /** What was shown last stays on the ordinary screen. */
  close(): void {
    if (!this.isOpen) return
    this.isOpen = false
    this.stream.off('resize', this.draw)
    for (const signal of SIGNALS) process.off(signal, this.leave)
    this.stream.write(`\x1b[?1049l\x1b[?25h${this.lines.map(line => `${line}\n`).join('')}`)
  }
}

const BAR = 24
const FRAMES = ['|', '/', '-', '\\'] as const
/** Milliseconds: what is done sooner needs no bar. */
const BEFORE_SHOWN = 1000
/** Milliseconds from one drawing to the next. */
const BETWEEN = 200

/** A bar on standard error while something takes longer than a second; nothing where that is no terminal. */
export class Progress {
  private readonly stream: WriteStream
  private readonly timer: NodeJS.Timeout | undefined
  private readonly start = performance.now()
  private words: string
  private share: number | undefined
  private isShown = false
  private drawnAt = -Infinity

  /** `share`: 0 to 1, or undefined where the end is not known. */
  constructor(words: string, share?: number, stream: WriteStream = process.stderr) {
    this.stream = stream
    this.words = words
    this.share = share
    if (!stream.isTTY) return
    this.timer = setInterval(() => this.draw(), BETWEEN).unref()
  }

  /** How far it is now. */
  update(words: string, share?: number): void {
    this.words = words
    this.share = share
    // Where something computes without a pause, the timer has no turn.
    if (this.timer !== undefined && performance.now() - this.drawnAt >= BETWEEN) this.draw()
  }

  private draw(): void {
    const now = performance.now()
    const took = now - this.start
    if (took < BEFORE_SHOWN) return
    this.drawnAt = now
    const { share } = this
    const full = Math.round((share ?? 0) * BAR)
    const gauge =
      share === undefined
        ? FRAMES[Math.floor(took / BETWEEN) % FRAMES.length]!
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
