// The libraries of examples/package.json, installed when what is there is not what the lock says.
import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

const INSTALL_MS = 600_000

export const installModules = examples => {
  const lock = readFileSync(join(examples, 'package-lock.json'), 'utf8')
  const mark = join(examples, 'node_modules', '.installed-lock.json')
  if (existsSync(mark) && readFileSync(mark, 'utf8') === lock) return
  console.log('installing the libraries of examples/package.json')
  const words = ['ci', '--prefix', examples, '--ignore-scripts', '--no-audit', '--no-fund']
  execFileSync('npm', words, { stdio: 'inherit', timeout: INSTALL_MS })
  writeFileSync(mark, lock)
}
