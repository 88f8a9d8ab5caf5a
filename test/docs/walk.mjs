// npm run walk: a newcomer's walk. The packed package is installed in an empty project, with an empty home and nothing of
// this environment; then what README and the guides show is done there as it is written. `--tarball FILE`: that package.
// Names of the examples lead to the loopback, and a program whose peer is a gateway may find nobody there.
import { execFileSync, spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'

const { values } = parseArgs({ options: { tarball: { type: 'string' } } })
const root = process.cwd()
const folder = mkdtempSync(join(tmpdir(), 'ike-walk-'))
const home = join(folder, 'home')
const project = join(folder, 'app')
mkdirSync(home)
mkdirSync(project)
const environment = {
  PATH: `${join(project, 'node_modules/.bin')}:${process.env.PATH}`,
  HOME: home,
  IKE_PSK: 'sixteen octets or more of a key',
}
const TIMEOUT = 6000

/** Blocks of a page: language, text, line, and the comment before. */
const blocksOf = page =>
  [
    ...readFileSync(join(root, page), 'utf8').matchAll(
      /(<!-- docs: (.*) -->\n\n)?^```(\w+)\n([\s\S]*?)^```$/gm,
    ),
  ].map(({ 2: mark, 3: language, 4: text, index, input }) => ({
    page: `${page}:${input.slice(0, index).split('\n').length}`,
    mark,
    language,
    text,
  }))

const done = []
const stumbles = []
const note = (what, problem) => {
  done.push(what)
  if (problem !== undefined) stumbles.push(`${what}: ${problem}`)
  console.log(
    `${problem === undefined ? 'ok  ' : 'FAIL'} ${what}${problem === undefined ? '' : `\n${problem}`}`,
  )
}

/** Every name is this host: what a newcomer writes into /etc/hosts. */
writeFileSync(
  join(project, 'names.mjs'),
  `import dns from 'node:dns'
import { syncBuiltinESMExports } from 'node:module'
const lookup = dns.lookup
const promised = dns.promises.lookup
const here = name => (/\\.(internal|com)$/.test(name) ? '127.0.0.1' : name)
dns.lookup = (name, ...rest) => lookup(here(name), ...rest)
dns.promises.lookup = (name, ...rest) => promised(here(name), ...rest)
syncBuiltinESMExports()
`,
)

/** Runs a program for a while; its output, and how it ended by itself. */
const run = (file, args = []) =>
  new Promise(settle => {
    const child = spawn(process.execPath, ['--import', './names.mjs', file, ...args], {
      cwd: project,
      env: environment,
    })
    let output = ''
    child.stdout.on('data', text => (output += text))
    child.stderr.on('data', text => (output += text))
    const timer = setTimeout(() => child.kill(), TIMEOUT)
    child.once('close', (code, signal) => {
      clearTimeout(timer)
      settle({ output, code, signal })
    })
  })

/** Nobody is there whom the program calls; anything else that ends it is a fault of the text. */
const isFair = ({ output, code, signal }) =>
  signal !== null || code === 0 || /ECONNREFUSED|ETIMEDOUT|ENOTFOUND/.test(output)

/** Commands that make and look at keys: others need a service that runs. */
const commandsOf = ({ text }) =>
  text
    .split('\n')
    .map(line => line.replace(/#.*$/, '').trim())
    .filter(line => /^(npx )?ike-socket (keygen|add|renew|revoke|show|verify)/.test(line))

const obey = ({ page }, line) => {
  const what = `${page} ${line}`
  // The second page makes the same files once more.
  const again = line.includes('keygen') && done.some(before => before.endsWith(line))
  try {
    const command = again ? `${line} --force` : line
    execFileSync('sh', ['-c', command], { cwd: project, env: environment, stdio: 'pipe' })
    note(what)
  } catch (error) {
    note(what, String(error.stderr || error.stdout || error))
  }
}

const runProgram = async ({ page, text }) => {
  const [, name = 'program.mjs'] = /^\/\/ (\S+\.mjs)$/m.exec(text) ?? []
  writeFileSync(join(project, name), text)
  const outcome = await run(`./${name}`)
  note(`${page} node ${name}`, isFair(outcome) ? undefined : outcome.output)
}

try {
  const tarball =
    values.tarball === undefined
      ? join(
          folder,
          execFileSync('npm', ['pack', '--silent', '--pack-destination', folder], {
            encoding: 'utf8',
          })
            .trim()
            .split('\n')
            .at(-1),
        )
      : resolve(values.tarball)
  const npm = (...args) =>
    execFileSync('npm', args, { cwd: project, env: environment, stdio: 'pipe' })
  npm('init', '-y')
  npm('install', '--offline', '--no-audit', tarball)
  note('npm install in an empty project')

  for (const block of ['README.md', 'examples/GUIDES.md', 'lib/README.md'].flatMap(blocksOf)) {
    if (block.language === 'sh') for (const line of commandsOf(block)) obey(block, line)
    else if (block.language === 'js' && block.mark !== 'metrics') await runProgram(block)
  }

  // The two programs of the first guide, one beside the other.
  const server = run('./orders.mjs')
  await new Promise(settle => setTimeout(settle, 1500))
  const { output } = await run('./billing.mjs')
  note(
    'billing.mjs speaks to orders.mjs',
    /connected to orders\.internal/.test(output) ? undefined : output,
  )
  await server
} finally {
  rmSync(folder, { recursive: true, force: true })
}
console.log(`${done.length} steps, ${stumbles.length} stumbles`)
process.exitCode = stumbles.length > 0 ? 1 : 0
