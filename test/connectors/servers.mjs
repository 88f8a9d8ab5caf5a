// Real servers of Debian's packages, each as an ordinary user in a folder of its own on a free port of the loopback.
import { execFileSync, spawn, spawnSync } from 'node:child_process'
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
import { startMongo } from './mongo.mjs'

/** For a busy machine: a start takes seconds. */
const START_MS = 120_000
const INSTALL_MS = 600_000

const LOOPBACK = '127.0.0.1'
const RABBITMQ = '/usr/lib/rabbitmq'

/** PostgreSQL has its programs outside of PATH. */
const postgresFolders = () =>
  existsSync('/usr/lib/postgresql')
    ? readdirSync('/usr/lib/postgresql').map(version => `/usr/lib/postgresql/${version}/bin`)
    : []

/** Where a program is. RabbitMQ's script in PATH wants to become another user, the one that it calls does not. */
export const find = program =>
  [`${RABBITMQ}/bin`, ...process.env.PATH.split(':'), '/usr/sbin', ...postgresFolders()]
    .map(folder => join(folder, program))
    .find(existsSync)

// --- whom they run as ---

/** Ourselves, or, when that is root, the first ordinary account that has a shell of its own. */
const chooseAccount = () => {
  const { uid, gid, username: name } = userInfo()
  if (uid !== 0) return { uid, gid, name }
  for (const line of readFileSync('/etc/passwd', 'utf8').split('\n')) {
    const [name, , id, group, , , shell] = line.split(':')
    if (Number(id) > 0 && /\/(ba)?sh$/.test(shell ?? ''))
      return { uid: Number(id), gid: Number(group), name }
  }
  throw new Error('root may not run the servers, and no other account has a shell')
}

let chosen
/** Not before the packages are installed: PostgreSQL's brings an account. */
export const account = () => (chosen ??= chooseAccount())
const identity = () => (process.getuid() === 0 ? { uid: account().uid, gid: account().gid } : {})

// --- programs ---

export const freeTcpPort = async () => {
  const server = net.createServer().listen(0, LOOPBACK)
  await once(server, 'listening')
  const { port } = server.address()
  server.close()
  return port
}

const children = []
const isRunning = child => child.exitCode === null && child.signalCode === null

export const stopAll = () =>
  Promise.all(
    children.filter(isRunning).map(async child => {
      child.kill('SIGTERM')
      const end = await Promise.race([once(child, 'exit'), wait(5000, undefined, { ref: false })])
      if (end === undefined) child.kill('SIGKILL')
    }),
  )

// However this process ends, they do not outlive it.
process.once('exit', () => children.filter(isRunning).forEach(child => child.kill('SIGKILL')))

const answers = port =>
  new Promise(resolve => {
    const socket = net.connect(port, LOOPBACK, () => {
      resolve(true)
      socket.destroy()
    })
    socket.once('error', () => resolve(false))
  })

const launch = (folder, program, words, env = {}) => {
  const child = spawn(find(program), words, {
    ...identity(),
    cwd: folder,
    env: { ...process.env, HOME: folder, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  children.push(child)
  const output = { text: '' }
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', text => (output.text = (output.text + text).slice(-1000)))
  child.on('error', error => (output.text = error.message))
  return { child, output }
}

/** Starts a program and waits for its port. */
const start = async (folder, port, program, words, env) => {
  const { child, output } = launch(folder, program, words, env)
  for (const end = Date.now() + START_MS; Date.now() < end && isRunning(child); await wait(200)) {
    if (await answers(port)) return
  }
  throw new Error(`${program} does not start: ${output.text}`)
}

const run = (folder, program, words) =>
  execFileSync(find(program), words, {
    ...identity(),
    cwd: folder,
    env: { ...process.env, HOME: folder },
    stdio: 'pipe',
    timeout: START_MS,
  })

/** The version in what a program says of itself, whatever its exit code is. */
const told = (program, word) => {
  const { stdout, stderr } = spawnSync(find(program), [word], {
    encoding: 'utf8',
    timeout: START_MS,
  })
  return stdout + stderr
}

// --- the servers ---

/**
 * Each has Debian's package, the programs of it that are used, where it stands inside ESP, a text that has its version,
 * and how it starts at a TCP port of 127.0.0.1. What has no package is in this process.
 */
const SERVERS = {
  postgres: {
    package: 'postgresql',
    programs: ['initdb', 'postgres'],
    inner: 5432,
    version: () => told('postgres', '--version'),
    async start(folder, port, { postgresHosts = [] }) {
      const data = join(folder, 'data')
      run(folder, 'initdb', ['-D', data, '-U', 'postgres', '-A', 'trust', '-N'])
      // initdb trusts the whole of 127.0.0.1 alone.
      writeFileSync(join(data, 'pg_hba.conf'), 'host all all 127.0.0.0/8 trust\n')
      const hosts = [LOOPBACK, ...postgresHosts].join()
      await start(folder, port, 'postgres', [
        '-D',
        data,
        '-p',
        `${port}`,
        '-h',
        hosts,
        '-k',
        '',
        '-F',
      ])
    },
  },
  mariadb: {
    package: 'mariadb-server',
    programs: ['mariadb-install-db', 'mariadbd'],
    inner: 3306,
    version: () => told('mariadbd', '--version'),
    async start(folder, port) {
      const base = ['--no-defaults', `--datadir=${join(folder, 'data')}`]
      run(folder, 'mariadb-install-db', [...base, '--auth-root-authentication-method=normal'])
      const grants = join(folder, 'grants.sql')
      const users = [LOOPBACK, 'localhost'].map(
        host => `CREATE USER test@'${host}' IDENTIFIED BY 'test';\n`,
      )
      writeFileSync(grants, users.join(''))
      chmodSync(grants, 0o644)
      const words = [
        `--bind-address=${LOOPBACK}`,
        `--port=${port}`,
        `--socket=${join(folder, 's')}`,
      ]
      await start(folder, port, 'mariadbd', [...base, ...words, `--init-file=${grants}`])
    },
  },
  redis: {
    package: 'redis-server',
    programs: ['redis-server'],
    inner: 6379,
    version: () => told('redis-server', '--version'),
    async start(folder, port) {
      const words = ['--bind', LOOPBACK, '--port', `${port}`, '--dir', folder, '--save', '']
      await start(folder, port, 'redis-server', words)
    },
  },
  mosquitto: {
    package: 'mosquitto',
    programs: ['mosquitto'],
    inner: 1883,
    version: () => told('mosquitto', '-h'),
    async start(folder, port) {
      const file = join(folder, 'mosquitto.conf')
      writeFileSync(file, `listener ${port} ${LOOPBACK}\nallow_anonymous true\n`)
      await start(folder, port, 'mosquitto', ['-c', file])
    },
  },
  rabbitmq: {
    package: 'rabbitmq-server',
    programs: ['rabbitmq-server', 'epmd'],
    inner: 5672,
    version: () => readdirSync(`${RABBITMQ}/lib`).join(),
    async start(folder, port) {
      const [names, distribution] = [await freeTcpPort(), await freeTcpPort()]
      // Started by Erlang itself it would outlive us.
      launch(folder, 'epmd', ['-port', `${names}`, '-address', LOOPBACK])
      await start(folder, port, 'rabbitmq-server', ['-noinput'], {
        RABBITMQ_NODENAME: `ike-${port}@localhost`,
        RABBITMQ_NODE_IP_ADDRESS: LOOPBACK,
        RABBITMQ_NODE_PORT: `${port}`,
        RABBITMQ_DIST_PORT: `${distribution}`,
        RABBITMQ_MNESIA_BASE: join(folder, 'db'),
        RABBITMQ_LOG_BASE: join(folder, 'log'),
        RABBITMQ_LOGS: '-',
        RABBITMQ_ENABLED_PLUGINS_FILE: join(folder, 'plugins'),
        RABBITMQ_CONF_ENV_FILE: join(folder, 'environment'),
        RABBITMQ_CONFIG_FILE: join(folder, 'rabbitmq'),
        RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS: '-kernel inet_dist_use_interface {127,0,0,1}',
        // So the script becomes the server, which then gets our signals.
        RABBITMQ_ALLOW_INPUT: '1',
        ERL_EPMD_PORT: `${names}`,
        ERL_EPMD_ADDRESS: LOOPBACK,
      })
    },
  },
  sshd: {
    package: 'openssh-server',
    programs: ['sshd', 'ssh-keygen'],
    inner: 2222,
    version: () => told('sshd', '-V'),
    async start(folder, port, { clientKey }) {
      const hostKey = join(folder, 'host')
      const words = ['-q', '-t', 'ed25519', '-N', '']
      run(folder, 'ssh-keygen', [...words, '-f', hostKey])
      execFileSync(find('ssh-keygen'), [...words, '-f', clientKey])
      const authorized = join(folder, 'authorized')
      writeFileSync(authorized, readFileSync(`${clientKey}.pub`))
      chmodSync(authorized, 0o644)
      const settings = [`Port ${port}`, `ListenAddress ${LOOPBACK}`, `HostKey ${hostKey}`]
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
  },
  mongo: { programs: [], inner: 27017, version: () => process.version, start: startMongo },
}

/** Where that server stands inside ESP. */
export const innerPort = name => SERVERS[name].inner

/** What the table says of a server: its name and version. */
export const describeServer = name => {
  if (name === undefined || SERVERS[name].package === undefined)
    return ['in process', process.version]
  const { programs, version } = SERVERS[name]
  const isThere = programs.every(program => find(program) !== undefined)
  return [name, (isThere ? /\d+\.\d+(\.\d+)*/.exec(version())?.[0] : undefined) ?? '-']
}

/** Starts the server of that name; resolves with its TCP port. */
export const startServer = async (name, parent, more) => {
  const folder = join(parent, name)
  mkdirSync(folder)
  if (process.getuid() === 0) chownSync(folder, account().uid, account().gid)
  const port = await freeTcpPort()
  await SERVERS[name].start(folder, port, more)
  return port
}

// --- their packages ---

/** The program of a package, for what is no server. */
const TOOLS = { openssl: 'openssl', tcpdump: 'tcpdump' }

const packages = () => [
  ...Object.values(SERVERS)
    .filter(({ programs }) => programs.some(program => find(program) === undefined))
    .map(server => server.package),
  ...Object.keys(TOOLS).filter(name => find(TOOLS[name]) === undefined),
]

/** Debian's packages ask it whether they may start what they install. */
const START_POLICY = '/usr/sbin/policy-rc.d'

/** Installs what is missing when we may; the names of the packages that are missing still. */
export const installMissing = () => {
  const missing = packages()
  if (missing.length === 0 || process.getuid() !== 0 || !existsSync('/usr/bin/apt-get'))
    return missing
  console.log(`installing ${missing.join(' ')}`)
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
  const apt = (...words) =>
    execFileSync('apt-get', ['-qq', '-o', 'DPkg::Lock::Timeout=300', ...words], {
      env,
      stdio: 'pipe',
      timeout: INSTALL_MS,
    })
  // Installing must not start a daemon on the machine itself.
  const isOurs = !existsSync(START_POLICY)
  if (isOurs) writeFileSync(START_POLICY, '#!/bin/sh\nexit 101\n', { mode: 0o755 })
  try {
    apt('update')
    apt('install', '-y', '--no-install-recommends', ...missing)
  } catch (error) {
    console.log(error.message)
  } finally {
    if (isOurs) rmSync(START_POLICY)
  }
  return packages()
}
