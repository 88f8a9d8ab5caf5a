// Real servers of Debian's packages, each as an ordinary user in a folder of its own on a free port of the loopback.
import { execFileSync, spawn } from 'node:child_process'
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { once } from 'node:events'
import net from 'node:net'
import { userInfo } from 'node:os'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'

const START_MS = 60_000

/** PostgreSQL has its programs outside of PATH. */
const postgresFolders = () =>
  existsSync('/usr/lib/postgresql')
    ? readdirSync('/usr/lib/postgresql').map(version => `/usr/lib/postgresql/${version}/bin`)
    : []

const find = program =>
  [...process.env.PATH.split(':'), '/usr/sbin', ...postgresFolders()]
    .map(folder => join(folder, program))
    .find(existsSync)

/** Debian's package of each program. */
const PACKAGES = {
  initdb: 'postgresql',
  mariadbd: 'mariadb-server',
  'redis-server': 'redis-server',
  mosquitto: 'mosquitto',
  sshd: 'openssh-server',
}

/** Debian's packages ask it whether they may start what they install. */
const START_POLICY = '/usr/sbin/policy-rc.d'

/** Installs what is missing when we may; the names of the packages that are missing still. */
export const installMissing = () => {
  const missing = () => Object.keys(PACKAGES).filter(program => find(program) === undefined)
  const packages = missing().map(program => PACKAGES[program])
  if (packages.length > 0 && process.getuid() === 0 && existsSync('/usr/bin/apt-get')) {
    console.log(`installing ${packages.join(' ')}`)
    const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
    const apt = (...words) =>
      execFileSync('apt-get', ['-qq', '-o', 'DPkg::Lock::Timeout=300', ...words], {
        env,
        stdio: 'ignore',
      })
    // Installing must not start a daemon on the machine itself.
    const isOurs = !existsSync(START_POLICY)
    if (isOurs) writeFileSync(START_POLICY, '#!/bin/sh\nexit 101\n', { mode: 0o755 })
    try {
      apt('update')
      apt('install', '-y', '--no-install-recommends', ...packages)
    } catch (error) {
      console.log(error.message)
    } finally {
      if (isOurs) rmSync(START_POLICY)
    }
  }
  return missing().map(program => PACKAGES[program])
}

/** Whom servers run as: ourselves, or, when that is root, the first ordinary account that has a shell of its own. */
const account = () => {
  const { uid, gid, username: name } = userInfo()
  if (uid !== 0) return { uid, gid, name }
  for (const line of readFileSync('/etc/passwd', 'utf8').split('\n')) {
    const [name, , id, group, , , shell] = line.split(':')
    if (Number(id) > 0 && /\/(ba)?sh$/.test(shell ?? ''))
      return { uid: Number(id), gid: Number(group), name }
  }
  throw new Error('root may not run the servers, and no other account has a shell')
}
export const user = account()
const identity = process.getuid() === 0 ? { uid: user.uid, gid: user.gid } : {}

export const freeTcpPort = async () => {
  const server = net.createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address()
  server.close()
  return port
}

const children = []
export const stopAll = async () => {
  for (const child of children) {
    if (child.exitCode !== null || child.signalCode !== null) continue
    child.kill('SIGTERM')
    if ((await Promise.race([once(child, 'exit'), wait(5000)])) === undefined) child.kill('SIGKILL')
  }
}

const answers = port =>
  new Promise(resolve => {
    const socket = net.connect(port, '127.0.0.1', () => {
      resolve(true)
      socket.destroy()
    })
    socket.once('error', () => resolve(false))
  })

/** Starts a program and waits for its port. */
const start = async (folder, port, program, words) => {
  const child = spawn(find(program), words, {
    ...identity,
    cwd: folder,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  children.push(child)
  let said = ''
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', text => (said += text))
  for (const end = Date.now() + START_MS; Date.now() < end; await wait(200)) {
    if (child.exitCode !== null) break
    if (await answers(port)) return
  }
  throw new Error(`${program} does not start: ${said.slice(-1000)}`)
}

const run = (folder, program, words) =>
  execFileSync(find(program), words, { ...identity, cwd: folder, stdio: 'pipe' })

const STARTS = {
  async postgres(folder, port) {
    run(folder, 'initdb', ['-D', join(folder, 'data'), '-U', 'postgres', '-A', 'trust', '-N'])
    const words = [
      '-D',
      join(folder, 'data'),
      '-p',
      `${port}`,
      '-h',
      '127.0.0.1',
      '-k',
      folder,
      '-F',
    ]
    await start(folder, port, 'postgres', words)
  },
  async mariadb(folder, port) {
    const base = ['--no-defaults', `--datadir=${join(folder, 'data')}`]
    run(folder, 'mariadb-install-db', [...base, '--auth-root-authentication-method=normal'])
    const grants = join(folder, 'grants.sql')
    writeFileSync(
      grants,
      "CREATE USER test@'127.0.0.1' IDENTIFIED BY 'test';\nCREATE USER test@localhost IDENTIFIED BY 'test';\n",
    )
    chmodSync(grants, 0o644)
    const words = ['--bind-address=127.0.0.1', `--port=${port}`, `--socket=${join(folder, 's')}`]
    await start(folder, port, 'mariadbd', [...base, ...words, `--init-file=${grants}`])
  },
  async redis(folder, port) {
    const words = ['--bind', '127.0.0.1', '--port', `${port}`, '--dir', folder, '--save', '']
    await start(folder, port, 'redis-server', words)
  },
  async mosquitto(folder, port) {
    const file = join(folder, 'mosquitto.conf')
    writeFileSync(file, `listener ${port} 127.0.0.1\nallow_anonymous true\n`)
    await start(folder, port, 'mosquitto', ['-c', file])
  },
  async sshd(folder, port, clientKey) {
    const hostKey = join(folder, 'host')
    const words = ['-q', '-t', 'ed25519', '-N', '']
    run(folder, 'ssh-keygen', [...words, '-f', hostKey])
    execFileSync(find('ssh-keygen'), [...words, '-f', clientKey])
    const authorized = join(folder, 'authorized')
    writeFileSync(authorized, readFileSync(`${clientKey}.pub`))
    chmodSync(authorized, 0o644)
    const settings = [`Port ${port}`, 'ListenAddress 127.0.0.1', `HostKey ${hostKey}`]
    settings.push(
      `AuthorizedKeysFile ${authorized}`,
      'StrictModes no',
      'UsePAM no',
      `PidFile ${folder}/pid`,
    )
    const file = join(folder, 'sshd_config')
    writeFileSync(file, `${settings.join('\n')}\n`)
    await start(folder, port, 'sshd', ['-D', '-e', '-f', file])
  },
}

/** Starts the server of that name; resolves with its TCP port. */
export const startServer = async (name, parent, more) => {
  const folder = join(parent, name)
  mkdirSync(folder)
  if (process.getuid() === 0) chownSync(folder, user.uid, user.gid)
  const port = await freeTcpPort()
  await STARTS[name](folder, port, more)
  return port
}
