/** Imported first by each entry of the package: on a Node that is too old it says so, in place of an error about syntax. */
import { nodeProblem } from '../base/supported-node.ts'

const problem = nodeProblem(process.versions.node)
if (problem !== undefined) throw new Error(problem)
