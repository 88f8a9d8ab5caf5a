/**
 * TCP alone, in virtual time: `npm run bench:tcp`. The floors that each version has to keep, and the grid with
 * how it differs from the one in the repository (`-- --update` replaces that; `-- --floors`, `-- --grid`: one of both;
 * `-- --processor`: the floors of processor time alone, of more turns).
 * `-- --checksum`: what the checksum costs. `-- --requests`: how long small requests take on a path that loses.
 * `-- --linux [cubic] [bbr] [beside] [20ms …] [1% …]`, as root: our sender against Linux' through one relay, in real
 * time, in turns and beside each other; of all cells, or of those that have these names.
 */
import {
  figureText,
  isReached,
  measureFloors,
  measureProcessor,
  type Figure,
} from './tcp-floors.ts'
import { showRequests } from './tcp-requests.ts'
import { showChecksum } from './tcp-checksum.ts'
import { compareWithLinux } from './tcp-linux.ts'
import { differences, gridText, measureGrid, readSnapshot, writeSnapshot } from './tcp-grid.ts'

const showFigures = (figures: Iterable<Figure>): boolean => {
  let isGood = true
  for (const figure of figures) {
    console.log(figureText(figure))
    isGood &&= isReached(figure)
  }
  return isGood
}

const showGrid = (isUpdate: boolean): void => {
  const grid = measureGrid()
  console.log(gridText(grid))
  const changes = differences(readSnapshot(), grid)
  console.log(changes.length === 0 ? 'As in the repository.' : changes.join('\n'))
  if (isUpdate) writeSnapshot(grid)
}

const args = process.argv.slice(2)
if (args.includes('--linux'))
  process.exitCode = (await compareWithLinux(args.filter(arg => !arg.startsWith('-')))) ? 0 : 1
else if (args.includes('--checksum')) showChecksum()
else if (args.includes('--requests')) showRequests()
else if (args.includes('--processor')) process.exitCode = showFigures(measureProcessor(9)) ? 0 : 1
else {
  if (!args.includes('--grid') && !showFigures(measureFloors())) process.exitCode = 1
  if (!args.includes('--floors')) showGrid(args.includes('--update'))
}
