/**
 * `TABLE[text]` and `text in TABLE` also find what every object inherits ('constructor', '__proto__'), so whoever chooses
 * the text chooses a function where a number is meant. In `lib` a Map holds such tables; an object that came from outside is
 * asked with `Object.hasOwn` in the same function first, or was made by `Object.create(null)`. Where that cannot be seen, a
 * comment above says `text-lookup:` and the reason.
 */
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import ts from 'typescript'

/** Whether a value of this type may be any text, rather than one of some named texts or a number. */
const isAnyText = (type: ts.Type): boolean =>
  type.isUnion()
    ? type.types.some(isAnyText)
    : (type.flags & (ts.TypeFlags.String | ts.TypeFlags.TemplateLiteral)) !== 0

/** The expression without what is said about its type. */
const plain = (node: ts.Expression): ts.Expression =>
  ts.isAsExpression(node) || ts.isNonNullExpression(node) || ts.isParenthesizedExpression(node)
    ? plain(node.expression)
    : node

const isWritten = (key: ts.Node): boolean =>
  ts.isStringLiteralLike(key) || ts.isNumericLiteral(key) || ts.isPrivateIdentifier(key)

/** Whether `Object.hasOwn(table, key)` is asked in the function around, or in one around that. */
const isAsked = (node: ts.Node, table: string, key: string): boolean => {
  const question = `Object.hasOwn(${table}, ${key})`
  for (let around = node.parent; around !== undefined; around = around.parent)
    if (ts.isFunctionLike(around) && around.getText().includes(question)) return true
  return false
}

/** Whether it is a variable that was made as `Object.create(null)`, which inherits nothing. */
const inheritsNothing = (object: ts.Expression, checker: ts.TypeChecker): boolean => {
  if (!ts.isIdentifier(object)) return false
  const made = checker.getSymbolAtLocation(object)?.valueDeclaration
  if (made === undefined || !ts.isVariableDeclaration(made) || made.initializer === undefined)
    return false
  return plain(made.initializer).getText() === 'Object.create(null)'
}

const isExcused = (node: ts.Node, source: ts.SourceFile): boolean => {
  const { line } = source.getLineAndCharacterOfPosition(node.getStart())
  return /^\s*\/\/ text-lookup: ./.test(source.text.split('\n')[line - 1] ?? '')
}

/** Where a file looks up text: line and expression. */
const lookupsIn = (source: ts.SourceFile, checker: ts.TypeChecker): readonly string[] => {
  const found: string[] = []
  const check = (node: ts.Node, table: ts.Expression, key: ts.Expression): void => {
    const object = plain(table)
    if (isWritten(key) || inheritsNothing(object, checker)) return
    if (checker.isArrayLikeType(checker.getNonNullableType(checker.getTypeAtLocation(table))))
      return
    if (!isAnyText(checker.getTypeAtLocation(key))) return
    if (isAsked(node, object.getText(), key.getText()) || isExcused(node, source)) return
    const { line } = source.getLineAndCharacterOfPosition(node.getStart())
    found.push(`${line + 1}: ${node.getText()}`)
  }
  const visit = (node: ts.Node): void => {
    if (ts.isElementAccessExpression(node)) check(node, node.expression, node.argumentExpression)
    if (ts.isBinaryExpression(node) && node.operatorToken.kind === ts.SyntaxKind.InKeyword)
      check(node, node.right, node.left)
    ts.forEachChild(node, visit)
  }
  visit(source)
  return found
}

const lib = join(process.cwd(), 'lib')
const files = readdirSync(lib, { recursive: true, encoding: 'utf8' })
  .filter(file => file.endsWith('.ts'))
  .map(file => join(lib, file))

const EXAMPLE = join(lib, 'example-of-the-rule.ts')
const EXAMPLE_TEXT = `
declare const table: Record<string, number>, list: number[], text: string, word: 'a' | 'b'
const bare = Object.create(null) as Record<string, number>
export const found = [table[text], text in table, table[text as string]!]
export const right = [table.a, table['a'], list[1], table[word], bare[text], 'a' in table]
export const asked = () => (Object.hasOwn(table, text) ? table[text] : 0)
// text-lookup: for a reason
export const excused = table[text]
`

const { config } = ts.readConfigFile(join(process.cwd(), 'tsconfig.json'), file =>
  ts.sys.readFile(file),
) as { config: { compilerOptions: object } }
const { options } = ts.convertCompilerOptionsFromJson(config.compilerOptions, process.cwd())
const host = ts.createCompilerHost(options, true)
const { getSourceFile } = host
host.getSourceFile = (name, language, ...more) =>
  name === EXAMPLE
    ? ts.createSourceFile(name, EXAMPLE_TEXT, language, true)
    : getSourceFile.call(host, name, language, ...more)
const program = ts.createProgram([...files, EXAMPLE], options, host)
const checker = program.getTypeChecker()

t.test('the rule finds each form, and lets pass what cannot be chosen from outside', async t => {
  t.strictSame(lookupsIn(program.getSourceFile(EXAMPLE)!, checker), [
    '4: table[text]',
    '4: text in table',
    '4: table[text as string]',
  ])
})

t.test('no file of lib looks up text in an object that inherits', async t => {
  for (const file of files)
    t.strictSame(lookupsIn(program.getSourceFile(file)!, checker), [], file.slice(lib.length + 1))
})
