/** JSON that people write: a fault is told by its line. V8 tells it by a count of characters, by a few of them or not at all. */

export const parseJson = (text: string): unknown => {
  try {
    return JSON.parse(text)
  } catch (error) {
    const words = `line ${lineOf(text.trimEnd())}: ${(error as Error).message}`
    throw new SyntaxError(words, { cause: error })
  }
}

/** No value but an object or an array goes on in another line, so what is cut off after a line is in order so far. */
const lineOf = (text: string): number => {
  const lines = text.split('\n')
  for (let count = 1; count < lines.length; count++)
    if (!isInOrder(lines.slice(0, count).join('\n').trimEnd())) return count
  return lines.length
}

/** It may end too soon. */
const isInOrder = (text: string): boolean => {
  try {
    JSON.parse(text)
    return true
  } catch (error) {
    const words = String(error)
    const at = /position (\d+)/.exec(words)?.[1]
    if (at === undefined) return words.includes('end of JSON')
    return words.includes('Expected') && Number(at) >= text.length
  }
}
