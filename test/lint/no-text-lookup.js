/**
 * The rule of eslint against looking up text in an object: `TABLE[text]` and `text in TABLE` also find what every object
 * inherits ('constructor', '__proto__'), so whoever chooses the text chooses a function where a number is meant. A Map holds
 * such tables; an object that came from outside is asked with `Object.hasOwn` in the same expression or function first.
 */
import ts from 'typescript'
import { ASTUtils, ESLintUtils } from '@typescript-eslint/utils'

/** Whether a value of this type may be any text, rather than one of some named texts or a number. */
const isAnyText = type =>
  type.isUnion()
    ? type.types.some(isAnyText)
    : (type.flags & (ts.TypeFlags.String | ts.TypeFlags.TemplateLiteral)) !== 0

/** The expression without what is said about its type. */
const plain = node => (/^TS(As|NonNull)Expression$/.test(node.type) ? plain(node.expression) : node)

const isFunction = node => /Function/.test(node.type)

export default {
  meta: {
    type: 'problem',
    schema: [],
    messages: {
      lookup:
        "'{{key}}' may be any text, and '{{table}}' inherits 'constructor' and the like: use a Map, or ask Object.hasOwn first",
    },
  },
  create(context) {
    const services = ESLintUtils.getParserServices(context)
    const checker = services.program.getTypeChecker()
    const source = context.sourceCode

    /** Whether `Object.hasOwn(table, key)` is asked in the function around, or in one around that. */
    const isAsked = (node, table, key) => {
      const question = `Object.hasOwn(${table}, ${key})`
      for (let around = node; around !== undefined && around !== null; around = around.parent)
        if (isFunction(around) && source.getText(around).includes(question)) return true
      return false
    }

    /** Whether it is a variable that was made as `Object.create(null)`, which inherits nothing. */
    const isBare = object => {
      if (object.type !== 'Identifier') return false
      const variable = ASTUtils.findVariable(source.getScope(object), object.name)
      const made = variable?.defs[0]?.node.init
      return made != null && source.getText(plain(made)) === 'Object.create(null)'
    }

    const check = (node, written, property) => {
      const object = plain(written)
      const type = checker.getNonNullableType(services.getTypeAtLocation(written))
      if (checker.isArrayLikeType(type)) return
      if (isBare(object) || !isAnyText(services.getTypeAtLocation(property))) return
      const table = source.getText(object)
      const key = source.getText(property)
      if (!isAsked(node, table, key))
        context.report({ node, messageId: 'lookup', data: { table, key } })
    }

    return {
      'MemberExpression[computed=true]'(node) {
        // A written name ('psk') is no text from outside.
        if (node.property.type !== 'Literal') check(node, node.object, node.property)
      },
      "BinaryExpression[operator='in']"(node) {
        if (node.left.type !== 'Literal' && node.left.type !== 'PrivateIdentifier')
          check(node, node.right, node.left)
      },
    }
  },
}
