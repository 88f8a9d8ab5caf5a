// npm test: every compiled test file, as many processes at a time as there are processors and one more, and beside them the
// files that mostly wait, as TAP with one line for each process; the whole output of one that fails is printed. With --lint
// it lints and checks the types of the package, too. A file that is pure computation shares its process with others. tap's
// own runner loads hooks into each process, and into what that starts, which here cost as much time as the tests: npx tap
// runs the same files. With --accelerated each has `accelerate: 'ffi'` where it says nothing of it.
import { spawn } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
const built = join(root, '.build')
const FLAGS = ['--lint', '--accelerated']
const wanted = process.argv.slice(2).filter(argument => !FLAGS.includes(argument))
/** They show nothing in TAP. */
const CHECKS = ['npm run lint', 'npm run check:types']
/** Folders of tests that have no socket, no clock and no process of their own: some files of them share one. */
const TOGETHER = ['base', 'core', 'esp', 'identity', 'ike', 'policy', 'tcp', 'udp', 'wire']
/** So many, because the whole output of a process that fails is printed, and so that none is the last for long. */
const MOST_TOGETHER = 6
/** Files that mostly wait for real timers: they start at once beside the others, since in turn they leave a processor idle. */
const WAITING = ['cli/doctor.test.ts', 'broken/others.test.ts', 'api/credentials.test.ts']
/** Seconds; a machine that has much else to do needs more than the tests do. */
const TIMEOUT = 600
const env = { ...process.env, TAP_TIMEOUT: String(TIMEOUT) }
if (process.argv.includes('--accelerated')) {
  const harness = join(built, 'test/harness/accelerated.js')
  env.NODE_OPTIONS = `${env.NODE_OPTIONS ?? ''} --no-warnings --import ${harness}`
}
/** The folder for what test/coverage.mjs reads. */
const { TEST_COVERAGE } = process.env
const measured =
  TEST_COVERAGE === undefined ? env : { ...env, NODE_V8_COVERAGE: resolve(TEST_COVERAGE) }

// What was deleted is in the folder of the compiler's output still.
const files = readdirSync(join(root, 'test'), { recursive: true })
  .filter(file => file.endsWith('.test.ts'))
  .filter(file => wanted.length === 0 || wanted.some(piece => file.includes(piece)))
  .sort()
if (files.length === 0) throw new Error('no test file is called so')

const compiled = file => join(built, 'test', file.replace(/ts$/, 'js'))
const jobOf = (...files) => ({
  name: files.map(file => `test/${file}`).join(' '),
  command: [
    process.execPath,
    ...(files.length === 1 ? [] : [join(root, 'test/together.mjs')]),
    ...files.map(compiled),
  ],
  // What looks through its own memory is left as it is.
  isMeasured: !files[0].startsWith('memory'),
})
const isShared = file => TOGETHER.includes(file.split('/')[0])
const isWaiting = file => WAITING.includes(file)
const waiting = files.filter(isWaiting).map(file => jobOf(file))
const jobs = files.filter(file => !isShared(file) && !isWaiting(file)).map(file => jobOf(file))
const shared = files.filter(isShared)
while (shared.length > 0) jobs.push(jobOf(...shared.splice(0, MOST_TOGETHER)))
if (process.argv.includes('--lint'))
  jobs.unshift(...CHECKS.map(name => ({ name, command: name.split(' '), isMeasured: false })))
const planned = jobs.length + waiting.length

const sums = { total: 0, pass: 0, fail: 0, skip: 0 }
let numbered = 0
let failures = 0

const run = job =>
  new Promise(resolve => {
    const began = performance.now()
    const [command, ...args] = job.command
    const child = spawn(command, args, { cwd: root, env: job.isMeasured ? measured : env })
    let text = ''
    const keep = chunk => (text += chunk)
    child.stdout.setEncoding('utf8').on('data', keep)
    child.stderr.setEncoding('utf8').on('data', keep)
    const timer = setTimeout(() => child.kill('SIGKILL'), (TIMEOUT + 30) * 1000)
    // Processes that it started and left hold its output open.
    child.on('exit', () => {
      setTimeout(() => [child.stdout, child.stderr].forEach(pipe => pipe.destroy()), 5000).unref()
    })
    child.on('close', (code, signal) => {
      clearTimeout(timer)
      tell(job.name, text, code, signal, performance.now() - began)
      resolve()
    })
  })

const tell = (name, text, code, signal, millis) => {
  // What sums up others ends with its time.
  const points = (text.match(/^ *(not )?ok \d+ .*$/gm) ?? []).filter(
    point => !/ # time=\S+$/.test(point),
  )
  // A file that shows nothing is as wrong as one that fails.
  const isRight = code === 0 && (points.length > 0 || CHECKS.includes(name))
  for (const point of points) {
    sums.total++
    if (/ # SKIP/i.test(point)) sums.skip++
    else if (point.trimStart().startsWith('ok')) sums.pass++
    else sums.fail++
  }
  if (!isRight) {
    failures++
    const end = signal === null ? `exit code ${code}` : `ended by ${signal}`
    console.log(`# Output of ${name} (${end})\n${text.replace(/^/gm, '    ')}`)
  }
  console.log(`${isRight ? 'ok' : 'not ok'} ${++numbered} - ${name} # time=${Math.round(millis)}ms`)
}

const began = performance.now()
console.log(`TAP version 14\n1..${planned}`)
const next = async () => {
  for (let job = jobs.shift(); job !== undefined; job = jobs.shift()) await run(job)
}
// A file that waits for something leaves a processor to another.
const lanes = Array.from({ length: Math.max(2, availableParallelism()) + 1 }, next)
await Promise.all([...waiting.map(run), ...lanes])
const counts = Object.entries(sums).filter(([, count]) => count > 0)
console.log(`# { ${counts.map(([name, count]) => `${name}: ${count}`).join(', ')} }`)
console.log(`# ${failures} of ${numbered} processes fail; ${files.length} files`)
console.log(`# time=${Math.round(performance.now() - began)}ms`)
process.exitCode = failures > 0 ? 1 : 0
