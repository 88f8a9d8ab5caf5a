/**
 * noble's algorithms. A program whose algorithms OpenSSL has needs none of them, so the package as it is built reads
 * them at the first call.
 */
import * as parts from './noble-parts.ts'

export const noble = (): typeof parts => parts
