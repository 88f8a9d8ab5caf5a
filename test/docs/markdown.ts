/** Blocks, links and headings of our pages. */
import { readFileSync } from 'node:fs'

export interface Block {
  readonly file: string
  readonly line: number
  /** `js`, `sh`, `json` and so on. */
  readonly language: string
  /** What the comment `<!-- docs: … -->` before it says. */
  readonly mark: string | undefined
  readonly text: string
}

export const blocksOf = (file: string): readonly Block[] => {
  const blocks: Block[] = []
  let open:
    | { line: number; language: string; mark: string | undefined; lines: string[] }
    | undefined
  let mark: string | undefined
  for (const [i, line] of readFileSync(file, 'utf8').split('\n').entries()) {
    const [, language] = /^```(\w*)$/.exec(line) ?? []
    if (open !== undefined && line === '```') {
      blocks.push({ file, ...open, text: `${open.lines.join('\n')}\n` })
      open = undefined
      mark = undefined
    } else if (open !== undefined) open.lines.push(line)
    else if (language !== undefined) open = { line: i + 1, language, mark, lines: [] }
    else if (line.trim() !== '') mark = /^<!-- docs: (.*) -->$/.exec(line)?.[1]
  }
  return blocks
}

/** Without blocks of code, in which brackets are no links. */
const prose = (file: string): string =>
  readFileSync(file, 'utf8').replace(/^```[\s\S]*?^```$/gm, '')

/** What links and pictures lead to. */
export const linksOf = (file: string): readonly string[] =>
  [...prose(file).matchAll(/\]\(([^)\s]+)\)/g)].map(([, target]) => target!)

/** Names of headings as GitHub makes anchors of them. */
export const anchorsOf = (file: string): ReadonlySet<string> =>
  new Set(
    [...prose(file).matchAll(/^#+ (.*)$/gm)].map(([, heading]) =>
      heading!
        .toLowerCase()
        .replace(/[^\p{L}\p{N}\s_-]/gu, '')
        .replaceAll(' ', '-'),
    ),
  )
