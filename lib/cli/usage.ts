/** The command line says what cannot be understood. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
}
