/** Prints the broken set-ups as a table: what each end says and after how long, and what `ike-socket doctor` says. */
import { waitsOf } from './in-virtual-time.ts'
import { causeOf, outcomeOf } from './outcome.ts'
import { SET_UPS } from './set-ups.ts'

const seconds = (millis: number | undefined): string =>
  millis === undefined ? '' : (millis / 1000).toFixed(1)
const cell = (text: string | undefined): string =>
  (text ?? '(it cannot know)').replace(/\|/g, '\\|')

console.log('| set-up | the client says | s | the server says | s | the doctor says |')
console.log('| --- | --- | --- | --- | --- | --- |')
for (const setUp of SET_UPS) {
  const [waits, { error, ours, diagnosis }] = await Promise.all([waitsOf(setUp), outcomeOf(setUp)])
  const cells = [
    setUp.name,
    cell(error.message),
    seconds(waits.client),
    cell(ours?.message),
    seconds(waits.server),
    cell(causeOf(diagnosis)),
  ]
  console.log(`| ${cells.join(' | ')} |`)
}
