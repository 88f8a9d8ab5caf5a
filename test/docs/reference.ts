/**
 * `lib/REFERENCE.md` from the sources: options from their comments and from the tables by which they are read, classes and
 * events from their declarations, names at run time from the glossary. `npm run docs` writes it.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { inspect } from 'node:util'
import ts from 'typescript'
import { OPTION_ENDS, OPTION_TABLE } from '../../lib/api/options.ts'
import { DROPS, ENVIRONMENT, EXIT_CODES, TRACE_EVENTS, WARNINGS } from './glossary.ts'

export const REFERENCE = 'lib/REFERENCE.md'

/** One documented member of a class or an interface. */
interface Member {
  readonly name: string
  /** As written in the source, without body. */
  readonly signature: string
  readonly text: string
  readonly tags: ReadonlyMap<string, string>
}

interface Declaration {
  readonly name: string
  readonly kind: 'class' | 'interface' | 'function' | 'type'
  readonly text: string
  readonly members: readonly Member[]
}

const isDocComment = (text: string): boolean => text.startsWith('/**')

/** The comment that stands before a node: its text as one Markdown text, and its tags. */
const commentOf = (
  source: ts.SourceFile,
  node: ts.Node,
): { text: string; tags: ReadonlyMap<string, string> } => {
  const ranges = ts.getLeadingCommentRanges(source.text, node.getFullStart()) ?? []
  const last = ranges.map(({ pos, end }) => source.text.slice(pos, end)).filter(isDocComment)
  const lines = (last.at(-1) ?? '')
    .replace(/^\/\*\*|\*\/$/g, '')
    .split('\n')
    .map(line => line.replace(/^\s*\* ?/, '').trimEnd())
  const tags = new Map<string, string>()
  const words: string[] = []
  for (const line of lines) {
    const [, tag, rest = ''] = /^\s*@(\w+) ?(.*)$/.exec(line) ?? []
    if (tag === undefined) words.push(line.trim() === '' ? '\n\n' : line.trim())
    else tags.set(tag, rest)
  }
  const text = words
    .join(' ')
    .replace(/ *\n\n */g, '\n\n')
    .trim()
  return { text, tags }
}

const isHidden = (node: ts.Node): boolean =>
  ts.canHaveModifiers(node) &&
  (ts.getModifiers(node) ?? []).some(
    ({ kind }) => kind === ts.SyntaxKind.PrivateKeyword || kind === ts.SyntaxKind.ProtectedKeyword,
  )

/** `connect(port, host[, listener])` of a method, `name` of everything else. */
const signatureOf = (name: string, node: ts.Node): string => {
  if (!ts.isMethodDeclaration(node) && !ts.isFunctionDeclaration(node)) return name
  const parameters = node.parameters.map(parameter => {
    const isOptional = parameter.questionToken !== undefined || parameter.initializer !== undefined
    return { text: parameter.name.getText(), isOptional }
  })
  const needed = parameters.filter(({ isOptional }) => !isOptional).map(({ text }) => text)
  const further = parameters.filter(({ isOptional }) => isOptional).map(({ text }) => text)
  const more = further.map((text, i) => (needed.length + i === 0 ? `[${text}` : `[, ${text}`))
  return `${name}(${needed.join(', ')}${more.join('')}${']'.repeat(more.length)})`
}

const membersOf = (source: ts.SourceFile, node: ts.Node): readonly Member[] => {
  if (!ts.isClassDeclaration(node) && !ts.isInterfaceDeclaration(node)) return []
  const found = new Map<string, Member>()
  for (const member of node.members) {
    const { name } = member
    if (name === undefined || ts.isPrivateIdentifier(name) || isHidden(member)) continue
    const { text, tags } = commentOf(source, member)
    const label = ts.isComputedPropertyName(name) ? name.getText() : name.text
    if (tags.has('internal') || label.startsWith('_')) continue
    // Of overloads the first one speaks.
    if (found.has(label)) continue
    const type = ts.isPropertySignature(member) ? (member.type?.getText() ?? '') : ''
    const signature = type.startsWith('[') ? type : signatureOf(label, member)
    found.set(label, { name: label, signature, text, tags })
  }
  return [...found.values()]
}

const kindOf = (node: ts.Node): Declaration['kind'] | undefined => {
  if (ts.isClassDeclaration(node)) return 'class'
  if (ts.isInterfaceDeclaration(node)) return 'interface'
  if (ts.isFunctionDeclaration(node) || ts.isVariableStatement(node)) return 'function'
  return ts.isTypeAliasDeclaration(node) ? 'type' : undefined
}

const nameOf = (node: ts.Node): string | undefined => {
  if (ts.isVariableStatement(node)) return node.declarationList.declarations[0]?.name.getText()
  const named = node as { name?: ts.Identifier }
  return named.name?.text
}

/** What a file exports, in its order; a class and an interface of one name are one declaration. */
export const declarationsOf = (file: string): readonly Declaration[] => {
  const text = readFileSync(file, 'utf8')
  const source = ts.createSourceFile(file, text, ts.ScriptTarget.ES2022, true)
  const found = new Map<string, Declaration>()
  for (const node of source.statements) {
    const name = nameOf(node)
    const kind = kindOf(node)
    const isExported =
      ts.canHaveModifiers(node) &&
      (ts.getModifiers(node) ?? []).some(({ kind: word }) => word === ts.SyntaxKind.ExportKeyword)
    if (!isExported || name === undefined || kind === undefined) continue
    const before = found.get(name)
    const members = membersOf(source, node)
    found.set(
      name,
      before === undefined
        ? { name, kind, text: commentOf(source, node).text, members }
        : {
            ...before,
            members: [
              ...before.members,
              ...members.filter(({ name: other }) => before.members.every(m => m.name !== other)),
            ],
          },
    )
  }
  return [...found.values()]
}

// --- options ---

const OPTION_TYPES = 'lib/api/option-types.ts'

/** Every option that a comment documents. */
export const documentedOptions = (): readonly Member[] => {
  const holders = ['IkeOptions', 'ConnectionOptions', 'SecureSocketOptions', 'SecureServerOptions']
  return declarationsOf(OPTION_TYPES)
    .filter(({ name }) => holders.includes(name))
    .flatMap(({ members }) => members)
}

/** In the order of the reference. */
export const CATEGORIES: Readonly<Record<string, string>> = {
  Connection: 'Where the service is, and how to get there.',
  Credentials: 'Who we are, and how we prove it.',
  Trust: 'Whom we accept, and on which proof.',
  Algorithms: 'How things are encrypted and signed.',
  Tunnel: 'What goes through the SA, with which inner addresses.',
  Lifetimes: 'When keys are replaced and SAs end.',
  Reachability: 'What happens when packets are lost, addresses change or a peer is gone.',
  Sockets: 'The TCP connection inside the tunnel.',
  'Server limits': 'What a server spends on strangers and on peers.',
  Diagnosis: 'What helps to find out why it does not work.',
}

const ENDS = { both: 'clients and servers', client: 'clients', server: 'servers' } as const

const HOUR = 3_600_000
const shownNumber = (value: number): string => {
  if (value >= 2 ** 32 && Number.isInteger(Math.log2(value))) return `2^${Math.log2(value)}`
  if (value === 2 ** 32 - 2 ** 20) return '2^32 − 2^20'
  return value >= HOUR && value % HOUR === 0 ? `${value} (${value / HOUR} h)` : String(value)
}

const defaultOf = ({ name, tags }: Member): string => {
  const said = tags.get('defaultValue')
  if (said !== undefined) return said
  const fallback = OPTION_TABLE[name]?.fallback
  if (fallback === undefined) return 'none'
  return typeof fallback === 'number' ? shownNumber(fallback) : `\`${inspect(fallback)}\``
}

/** What the table itself says of a value that it refuses. */
const acceptedOf = (name: string): string | undefined => {
  try {
    OPTION_TABLE[name]?.parse(name, Symbol('none'))
  } catch (error) {
    const message = error instanceof Error ? error.message : ''
    return / must be (?<accepted>an? .*(?:integer|number).*?|one of .*?|true or false)\. Received/.exec(
      message,
    )?.groups?.['accepted']
  }
  return undefined
}

const rfcsOf = (text: string): readonly string[] => [
  ...new Set([...text.matchAll(/RFC \d+(?: §[\d.]*\d)?/g)].map(([rfc]) => rfc)),
]

const optionText = (option: Member): string => {
  const { name, text, tags } = option
  const accepted = acceptedOf(name)
  const facts = [
    `Read by ${ENDS[OPTION_ENDS.get(name)!]}`,
    `default: ${defaultOf(option)}`,
    ...(accepted === undefined ? [] : [`value: ${accepted}`]),
    ...rfcsOf(text),
  ]
  return `#### \`${name}\`\n\n${facts.join(' · ')}\n\n${text}\n\n\`\`\`js\n{ ${tags.get('example')} }\n\`\`\`\n`
}

const optionsPart = (): string => {
  const options = documentedOptions()
  return Object.entries(CATEGORIES)
    .map(([category, text]) => {
      const own = options.filter(({ tags }) => tags.get('category') === category)
      return `### ${category}\n\n${text}\n\n${own.map(optionText).join('\n')}`
    })
    .join('\n')
}

// --- classes, events and facts ---

const cell = (text: string): string => text.replaceAll('|', '\\|').replace(/\s*\n\s*/g, ' ')

const table = (heads: readonly string[], rows: readonly (readonly string[])[]): string =>
  [
    `| ${heads.join(' | ')} |`,
    `| ${heads.map(() => '---').join(' | ')} |`,
    ...rows.map(row => `| ${row.map(cell).join(' | ')} |`),
    '',
  ].join('\n')

/** The classes with the file of each, the table of their events and where that stands. */
const CLASSES = [
  ['SecureSocket', 'lib/api/secure-socket.ts', 'lib/api/socket-events.ts'],
  ['SecureServer', 'lib/api/secure-server.ts', 'lib/api/secure-server.ts'],
  ['SecureEndpoint', 'lib/api/endpoint.ts', 'lib/api/endpoint.ts'],
  ['SecureDatagram', 'lib/api/secure-datagram.ts', 'lib/api/secure-datagram.ts'],
  ['Session', 'lib/api/session.ts', undefined],
] as const

const FACTS = [
  ['SessionInfo', 'lib/core/events.ts'],
  ['ChildInfo', 'lib/core/events.ts'],
  ['ListenOptions', 'lib/api/secure-server.ts'],
  ['RefusedPeer', 'lib/api/secure-server.ts'],
  ['DropFacts', 'lib/api/secure-server.ts'],
  ['AuthorizedPeer', OPTION_TYPES],
  ['SignRequest', OPTION_TYPES],
  ['PfxOption', OPTION_TYPES],
  ['PpkOption', OPTION_TYPES],
  ['RetransmitOption', OPTION_TYPES],
  ['EndpointOptions', OPTION_TYPES],
  ['DatagramInfo', 'lib/api/secure-datagram.ts'],
  ['DatagramBindOptions', 'lib/api/secure-datagram.ts'],
] as const

const declaration = (name: string, file: string): Declaration => {
  const found = declarationsOf(file).find(other => other.name === name)
  if (found === undefined) throw new Error(`${file} exports no ${name}`)
  return found
}

const classPart = (name: string, file: string, eventsFile: string | undefined): string => {
  const { text, members } = declaration(name, file)
  const own = members.filter(({ text: words }) => words !== '')
  const rows = own.map(member => [`\`${member.signature}\``, member.text])
  const events =
    eventsFile === undefined
      ? ''
      : `\n${table(
          ['event', 'arguments', 'when'],
          declaration(`${name}Events`, eventsFile).members.map(event => [
            `\`${event.name}\``,
            event.signature === '[]' ? '' : `\`${event.signature.slice(1, -1)}\``,
            event.text,
          ]),
        )}`
  return `### ${name}\n\n${text}\n\n${table(['member', 'what it is'], rows)}${events}`
}

const factsPart = (name: string, file: string): string => {
  const { text, members } = declaration(name, file)
  const rows = members.map(member => [`\`${member.name}\``, member.text])
  return `### ${name}\n\n${text}\n\n${table(['member', 'what it is'], rows)}`
}

const FUNCTIONS = [
  ['createSecureSocket', 'lib/api/secure-socket.ts'],
  ['createSecureServer', 'lib/api/secure-server.ts'],
  ['createEndpoint', 'lib/api/endpoint.ts'],
  ['createSecureDatagram', 'lib/api/secure-datagram.ts'],
  ['createSecureContext', 'lib/api/options.ts'],
  ['formatKeyLog', 'lib/node/key-log.ts'],
] as const

const functionsPart = (): string =>
  table(
    ['function', 'what it does'],
    FUNCTIONS.map(([name, file]) => [`\`${name}\``, declaration(name, file).text]),
  )

const errorsPart = (): string => {
  const classes = declarationsOf('lib/base/errors.ts').filter(
    ({ name, kind }) => kind === 'class' && name.endsWith('Error'),
  )
  return table(
    ['class', 'when'],
    classes.map(({ name, text }) => [`\`${name}\``, text]),
  )
}

const glossaryPart = (head: string, words: Readonly<Record<string, string>>): string =>
  table(
    [head, 'meaning'],
    Object.entries(words).map(([name, text]) => [`\`${name}\``, text]),
  )

/** The whole page. */
export const makeReference = (): string => `# Reference

Generated by \`npm run docs\` from the sources; change the comments there.

[Options](#options) · [Functions](#functions) · [Classes and events](#classes-and-events) · [Objects](#objects) ·
[Errors](#errors) · [Trace events](#trace-events) · [Drop counters](#drop-counters) · [Warnings](#warnings) ·
[Environment](#environment) · [Exit codes](#exit-codes)

## Options

Times are milliseconds, sizes are octets. \`undefined\` counts as not given. An unknown option, a wrong type or a value out of
range throws an \`OptionError\` at once, which names the option; options that \`net\` has throw as in \`net\`.

\`{ file: path }\` may stand for the value of \`psk\`, \`cert\`, \`key\`, \`passphrase\`, \`pfx\`, \`ca\`, \`crl\`, \`peerKeys\` or
\`ocspResponse\`, or for one of several values: it means what the file holds.

${optionsPart()}
## Functions

The package \`ike-socket\` exports the following. \`connect\` is another name of \`createSecureSocket\`.

${functionsPart()}
\`ike-socket/net\` has the names of \`node:net\` (\`connect\`, \`createServer\`, \`Socket\`, \`Server\`, \`BlockList\` and so on; the
classes also without \`new\`), a default export, and \`configure(options)\`. \`ike-socket/http\` has \`createServer\`, \`Server\` and
\`Agent\` of \`node:http\`, and \`configure(options)\`. \`ike-socket/connectors\` has \`connectTls\`, \`undiciConnector\`,
\`pgStream\` and \`ioredisConnector\`: [use it with X](../examples/README.md). \`ike-socket/register\` is for \`node --import\`.

## Classes and events

${CLASSES.map(([name, file, events]) => classPart(name, file, events)).join('\n')}
## Objects

${FACTS.map(([name, file]) => factsPart(name, file)).join('\n')}
## Errors

Errors of a connection have the codes of \`net\` (\`ECONNREFUSED\`, \`ECONNRESET\`, \`ETIMEDOUT\`). Errors of IKE have the name in
IANA's registry (\`AUTHENTICATION_FAILED\`, \`NO_PROPOSAL_CHOSEN\`, \`TS_UNACCEPTABLE\`) or begin with \`ERR_IKE_\`; they have
\`details\`.

${errorsPart()}
## Trace events

The channel \`ike-socket:trace\` of \`node:diagnostics_channel\` publishes \`{ name, at, facts }\`; \`NODE_DEBUG=ike-socket\` prints
the same. Keys are never in them.

${glossaryPart('name', TRACE_EVENTS)}
## Drop counters

\`counters.drops\` of a server, an endpoint or a session counts what was dropped, by reason.

${glossaryPart('reason', DROPS)}
## Warnings

\`process.on('warning')\` gets warnings with these codes, and warnings about SAs with the code of their error.

${glossaryPart('code', WARNINGS)}
## Environment

${glossaryPart('variable', ENVIRONMENT)}
## Exit codes

Of the command \`ike-socket\`.

${glossaryPart('code', EXIT_CODES)}`

if (process.argv.includes('--write')) writeFileSync(REFERENCE, makeReference())
