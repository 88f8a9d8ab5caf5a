/** Writes the reference of errors, as `npm run docs` does after the other pages. */
import { writeFileSync } from 'node:fs'
import { ERRORS_FILE, errorReference } from './errors.ts'

writeFileSync(ERRORS_FILE, errorReference())
