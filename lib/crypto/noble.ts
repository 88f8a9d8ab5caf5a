/**
 * noble's algorithms. A program does not need them where OpenSSL has its algorithms, so the built package loads them at
 * the first call.
 */
import * as parts from './noble-parts.ts'

export const noble = (): typeof parts => parts
