/** The reference of errors, written from the table that makes them. */
import {
  ERROR_TABLE,
  INSIDE,
  OTHER_CODES,
  OUTSIDE,
  type ErrorRow,
} from '../../lib/base/error-table.ts'

export const ERRORS_FILE = 'lib/ERRORS.md'

const HEAD = `# Errors

Generated from \`base/error-table.ts\` by \`npm run docs\`.

An error about IKE is an \`IpsecError\`: \`code\` as the table says, \`reason\` the name of the row, \`fault\` whose fault it is as far as this end can know, \`cure\` the next step (which also ends \`message\`), \`details\` facts for programs. Its class names the culprit: \`PolicyError\` (the two ends are configured for different things, and this end refuses), \`PeerRefusedError\`, \`PeerMisbehavedError\`, \`AuthenticationError\`, \`UnreachablePeerError\`, \`ApplicationError\` (a function of the program), \`LimitError\`, \`InternalError\`; options that cannot be used are an \`OptionError\`. A peer is told the Notify alone. A server emits \`ikeClientError\` with each peer that it refuses; a process without a listener for it is warned once a minute (\`IKE_CLIENT_REFUSED\`).

\`NOTIFY\` stands for the registry name of the Notify that came; words in braces stand for values.
`

const cell = (text: string): string =>
  text
    .replace(/\{(\w+)\}/g, '*$1*')
    .replaceAll('|', '\\|')
    .replaceAll('<', '&lt;')

const row = (
  reason: string,
  { class: of, code, fault, says, cure, notify, ends }: ErrorRow,
): string =>
  `| \`${reason}\` | \`${of}Error\` | \`${code}\` | ${fault} | ${cell(says)} | ${cell(cure)} | ${notify ?? ''} | ${ends} |`

const classOf = (text: string): string => text.replace('UnreachableError', 'UnreachablePeerError')

const notes = (title: string, of: ReadonlyMap<string, string>): string =>
  [`### ${title}`, '', ...Array.from(of, ([code, text]) => `- \`${code}\`: ${text}`), ''].join('\n')

export const errorReference = (): string =>
  [
    HEAD,
    '| `reason` | class | `code` | whose fault | what it says | what helps | Notify | what ends |',
    '|---|---|---|---|---|---|---|---|',
    ...Object.entries(ERROR_TABLE).map(([reason, of]) => classOf(row(reason, of))),
    '',
    '## Other codes',
    '',
    '| `code` | class | meaning |',
    '|---|---|---|',
    ...OTHER_CODES.map(([code, of, meaning]) => `| \`${code}\` | \`${of}\` | ${cell(meaning)} |`),
    '',
    '## What `connect` adds to the codes of net',
    '',
    notes('Inside the tunnel', INSIDE),
    notes('Of UDP to the gateway', OUTSIDE).trimEnd(),
    '',
  ].join('\n')
