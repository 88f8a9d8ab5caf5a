// The options of a script. Its usage is the comment that it begins with: `--help` shows it, and so does an option that it
// does not have, which ends it with 2.
import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'

const usageOf = url => {
  const lines = readFileSync(new URL(url), 'utf8').split('\n')
  const end = lines.findIndex(line => !line.startsWith('//'))
  return lines
    .slice(0, end)
    .map(line => line.replace(/^\/\/ ?/, ''))
    .join('\n')
}

/** `url`: of the script; `options`: as `parseArgs` has them. */
export const optionsOf = (url, options) => {
  const help = { type: 'boolean', default: false }
  try {
    const { values } = parseArgs({ options: { ...options, help } })
    if (!values.help) return values
    console.log(usageOf(url))
    process.exit()
  } catch (error) {
    console.error(`${error.message.split('\n')[0]}\n\n${usageOf(url)}`)
    process.exit(2)
  }
}
