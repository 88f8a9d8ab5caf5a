/** Completions, run by the shells that they are for; and what holds for every command. */
import { spawnSync } from 'node:child_process'
import t from 'tap'
import { COMMANDS } from '../../lib/cli/commands.ts'
import { runCommand } from '../harness/command.ts'

const script = async (shell: string): Promise<string> =>
  (await runCommand(['completion', shell])).stdout

t.test('bash completes commands, options, words and files', async t => {
  const source = await script('bash')
  const complete = (...words: string[]): readonly string[] => {
    const line = words.map(word => `'${word}'`).join(' ')
    const { stdout, stderr } = spawnSync(
      'bash',
      [
        '--norc',
        '-c',
        `${source}\nCOMP_WORDS=(${line}); COMP_CWORD=${words.length - 1}; _ike_socket; printf '%s\\n' "\${COMPREPLY[@]}"`,
      ],
      { encoding: 'utf8' },
    )
    t.equal(stderr, '')
    return stdout.split('\n').filter(word => word !== '')
  }
  t.strictSame(complete('ike-socket', 'stat'), ['status'])
  t.equal(complete('ike-socket', '').length, COMMANDS.length + 2)
  t.strictSame(complete('ike-socket', 'status', '--wa'), ['--watch'])
  t.strictSame(complete('ike-socket', 'completion', 'z'), ['zsh'])
  t.strictSame(complete('ike-socket', 'ping', 'a', '--config', 'package.js'), ['package.json'])
  t.strictSame(complete('ike-socket', 'verify', 'a', '--crl', 'package.js'), ['package.json'])
  t.strictSame(complete('ike-socket', 'keygen', '--type', 'e'), ['ed25519', 'ecdsa'])
  t.strictSame(complete('ike-socket', 'peer-config', 'aws', '--as', ''), ['client', 'server'])
  t.strictSame(complete('ike-socket', 'keygen', '--days', ''), [], 'no file stands for a number')
  t.strictSame(complete('ike-socket', 'ping', 'a', '-c', ''), [])
  t.strictSame(complete('ike-socket', 'status', '--watch', 'package.js'), ['package.json'])
  t.strictSame(complete('ike-socket', 'nothing', '-'), [])
})

const hasZsh = spawnSync('zsh', ['--version']).status === 0
t.test(`zsh${hasZsh ? '' : ' (skipped: it is not here)'}`, async t => {
  if (!hasZsh) return
  const source = await script('zsh')
  const complete = (...words: string[]): readonly string[] => {
    const line = words.map(word => `'${word}'`).join(' ')
    // Its own functions for completion work in an interactive shell alone; these print what they are given.
    const stubs =
      'compdef() { : }; compadd() { shift; print -l -- "$@" }; _files() { print FILES }; _describe() { print -l -- ${(P)2} }'
    const { stdout, stderr } = spawnSync(
      'zsh',
      ['-f', '-c', `${stubs}\n${source}\nwords=(${line}); CURRENT=${words.length}; _ike_socket`],
      { encoding: 'utf8' },
    )
    t.equal(stderr, '')
    return stdout.split('\n').filter(word => word !== '')
  }
  t.ok(complete('ike-socket', '').some(word => word.startsWith('status:')))
  t.ok(complete('ike-socket', 'status', '-').includes('--watch'))
  t.strictSame(complete('ike-socket', 'completion', ''), ['bash', 'zsh'])
  t.strictSame(complete('ike-socket', 'ping', 'a', '--config', ''), ['FILES'])
  t.strictSame(complete('ike-socket', 'add', 'a', '--role', ''), ['client', 'server'])
  t.strictSame(complete('ike-socket', 'add', 'a', '--days', ''), [])
})

t.test('each command explains itself with examples, options and exit codes', async t => {
  const all = await runCommand(['--help'])
  for (const { name, help, options, summary } of COMMANDS) {
    t.match(all.stdout, summary, name)
    t.match(help, /^Usage: ike-socket /)
    t.match(help, /\nExamples:\n {2}\S/)
    t.match(help, /\nExit code/)
    for (const [option, { short }] of Object.entries(options))
      t.ok(help.includes(`--${option}`) || help.includes(`-${short} `), `${name} --${option}`)
    t.notMatch(help, /[ \t]\n/)
    t.hasStrict(options, { json: { type: 'boolean' } }, `${name} --json`)
  }
  const { code, stdout } = await runCommand(['status', '--help'])
  t.equal(code, 0)
  t.match(stdout, /^Usage: ike-socket status/)
  const wrong = await runCommand(['completion', 'fish'])
  t.equal(wrong.code, 2)
  t.match(wrong.stderr, 'Try: ike-socket completion --help')

  const json = await runCommand(['completion', 'zsh', '--json'])
  t.strictSame(JSON.parse(json.stdout), { shell: 'zsh', script: await script('zsh') })
  const refused = await runCommand(['completion', 'fish', '--json'])
  t.equal(refused.code, 2)
  t.strictSame(JSON.parse(refused.stderr), {
    error: wrong.stderr.replace(/^ike-socket: /, '').trimEnd(),
  })
})
