/**
 * What a process of its own runs is the package as it is published, which starts in a quarter of the time that its modules
 * take one by one; it is the modules where coverage is measured, and where the native functions are the default.
 */
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'

const { NODE_V8_COVERAGE, NODE_OPTIONS = '' } = process.env
const isByModule = NODE_V8_COVERAGE !== undefined || NODE_OPTIONS.includes('harness/accelerated.js')

/** The file of an entry, such as `index`, `register` or `cli/main`. */
export const packageFile = (entry: string): string =>
  join(import.meta.dirname, '../../..', isByModule ? '.build/lib' : 'dist', `${entry}.js`)

/** The same, to be imported. */
export const packageUrl = (entry: string): string => pathToFileURL(packageFile(entry)).href
