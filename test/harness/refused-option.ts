/** What options are refused by. */
import { OptionError } from '../../lib/base/errors.ts'

/** Which option the error names; any other error itself; undefined when there is none. */
export const refusedOption = (make: () => unknown): unknown => {
  try {
    make()
  } catch (error) {
    return error instanceof OptionError ? error.option : error
  }
  return undefined
}
