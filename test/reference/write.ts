/** Writes the reference pages that are generated. */
import { writeFileSync } from 'node:fs'
import { ERRORS_FILE, errorReference } from './errors.ts'

writeFileSync(ERRORS_FILE, errorReference())
