// Finds the types that public declarations name and that a program cannot import.
import { join } from 'node:path'
import { readFileSync } from 'node:fs'
import ts from 'typescript'

/** Declarations of the class that no program sees. */
const isPrivate = node =>
  ts.canHaveModifiers(node) &&
  (ts.getModifiers(node) ?? []).some(({ kind }) => kind === ts.SyntaxKind.PrivateKeyword)

/** One line for each type of the built package that its entries show and do not export. */
export const hiddenTypes = root => {
  const { exports } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
  const entries = Object.values(exports).flatMap(({ types }) => types ?? [])
  const program = ts.createProgram(
    entries.map(entry => join(root, entry)),
    { module: ts.ModuleKind.NodeNext, types: ['node'], skipLibCheck: true },
  )
  const checker = program.getTypeChecker()
  const own = symbol =>
    symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol
  const shown = new Set()
  for (const entry of entries) {
    const module = checker.getSymbolAtLocation(program.getSourceFile(join(root, entry)))
    for (const symbol of checker.getExportsOfModule(module)) shown.add(own(symbol))
  }
  const hidden = new Map()
  const visit = (node, symbol) => {
    if (isPrivate(node)) return
    const name = ts.isTypeReferenceNode(node)
      ? node.typeName
      : ts.isExpressionWithTypeArguments(node)
        ? node.expression
        : undefined
    const found = name && checker.getSymbolAtLocation(name)
    if (found !== undefined) note(own(found), symbol)
    ts.forEachChild(node, child => visit(child, symbol))
  }
  const note = (found, symbol) => {
    const file = found.declarations?.[0]?.getSourceFile().fileName ?? ''
    const isParameter = found.flags & ts.SymbolFlags.TypeParameter
    if (isParameter || !file.startsWith(join(root, 'dist')) || shown.has(found)) return
    if (!hidden.has(found)) hidden.set(found, symbol.name)
  }
  for (const symbol of shown) {
    for (const declaration of symbol.declarations ?? []) visit(declaration, symbol)
  }
  return [...hidden].map(([found, user]) => `${found.name}, which ${user} shows, is not exported`)
}
