/** What commands draw on a terminal: bars, and `status --watch` under a terminal of its own where there is `script`. */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { WriteStream } from 'node:tty'
import t from 'tap'
import { cut, Progress } from '../../lib/cli/terminal.ts'
import { createSecureServer, createSecureSocket } from '../../lib/index.ts'
import { packageFile } from '../harness/package.ts'

const folder = mkdtempSync(join(tmpdir(), 'ike-terminal-'))
t.after(() => rmSync(folder, { recursive: true }))

/** A stream that keeps what is written to it. */
const recorder = (isTTY: boolean): { stream: WriteStream; written: string[] } => {
  const written: string[] = []
  const write = (text: string): boolean => written.push(text) > 0
  return { stream: { isTTY, write } as unknown as WriteStream, written }
}

t.test(
  'a bar is drawn on a terminal alone, after a second, also where the timer has no turn',
  t => {
    const began = performance.now()
    const terminal = recorder(true)
    const file = recorder(false)
    const bars = [terminal, file].map(({ stream }) => new Progress('work', 0, stream))
    for (const bar of bars) bar.update('sooner than a second', 0.1)
    t.strictSame(terminal.written, [])
    while (performance.now() < began + 1100) for (const bar of bars) bar.update('work', 0.5)
    t.match(terminal.written.at(-1), /^\r\x1b\[K\[#{12}\.{12}\] work \(1 s\)$/)
    for (const bar of bars) bar.stop()
    t.equal(terminal.written.at(-1), '\r\x1b[K', 'it is gone at the end')
    t.strictSame(file.written, [])
    t.end()
  },
)

t.test('a line is cut to the columns, and its colours take none', t => {
  t.equal(cut('abc', 3), 'abc')
  t.equal(cut('abcd', 3), 'abc\x1b[0m')
  t.equal(cut('\x1b[1mab\x1b[0mcd', 3), '\x1b[1mab\x1b[0mc\x1b[0m')
  t.equal(cut('\x1b[1mabc\x1b[0m', 3), '\x1b[1mabc\x1b[0m')
  t.end()
})

const hasScript = spawnSync('script', ['--version']).status === 0

t.test(`status --watch on a terminal${hasScript ? '' : ' (skipped: no script here)'}`, async t => {
  if (!hasScript) return
  const psk = 'a key that both of these ends know'
  const control = join(folder, 'app.sock')
  const server = createSecureServer({ psk, ikePort: 0, control, localId: 'server.test' }, socket =>
    socket.on('error', () => {}).resume(),
  )
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const to = { host: '127.0.0.1', port: server.address()!.port, ikePort: server.ikePort!, psk }
  const socket = createSecureSocket(to)
  socket.on('error', () => {}).resume()
  await once(socket, 'connect')

  const command = `stty rows 6 cols 40; exec '${process.execPath}' '${packageFile('cli/main')}' status --watch --interval 0.1 '${control}'`
  const environment = { ...process.env, TERM: 'xterm' }
  delete (environment as Record<string, string | undefined>)['NO_COLOR']
  const terminal = spawn('script', ['-qec', command, '/dev/null'], { env: environment })
  let screen = ''
  let isInterrupted = false
  terminal.stdout.setEncoding('utf8').on('data', (text: string) => {
    screen += text
    if (isInterrupted || screen.split('\x1b[H').length < 4) return
    isInterrupted = true
    // As the key Ctrl-C: the terminal makes SIGINT of it.
    terminal.stdin.write('\x03')
  })
  const [code] = (await once(terminal, 'close')) as [number]
  t.equal(code, 0)
  const [before, ...looks] = screen.split('\x1b[H\x1b[J')
  t.equal(before, '\x1b[?1049h\x1b[?25l', 'another screen, without a cursor')
  const last = looks.pop()!
  for (const look of looks) {
    const lines = look.trimEnd().split('\r\n')
    t.ok(lines.length <= 5, 'no more lines than there are')
    for (const line of lines) t.ok(line.replace(/\x1b\[\d+m/g, '').length <= 40, line)
    t.match(look, /^process \d+: \d sessions?\r\n/)
    t.match(look, /\x1b\[1m/, 'in colour')
  }
  t.ok(last.includes('\x1b[?1049l\x1b[?25h'), 'screen and cursor are back')
  t.match(last.split('\x1b[?25h')[1], /^(\^C)?process \d+: /, 'and what was seen last stays')
  socket.destroy()
  server.close()
})
