import { spawnSync } from 'node:child_process'
import { constants } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { createSecureContext } from '../../lib/index.ts'
import {
  eventLoop,
  ffiProblem,
  nativeCallback,
  nativeFunction,
  NativeMemory,
  readInt32,
} from '../../lib/base/ffi.ts'
import { ffiProblemOf } from '../../lib/base/supported-node.ts'

const psk = 'a pre-shared key for these tests'
const problem = ffiProblem()
const isHere = problem === undefined
const notHere = isHere ? '' : ` (skipped: native functions work ${problem})`
const notElsewhere = isHere ? ' (skipped: native functions can be called here)' : ''
/** As this file is compiled. */
const lib = join(import.meta.dirname, '..', '..', 'lib')

/** What a program says that asks for acceleration, on a Node that is started with these flags. */
const say = (accelerate: string, ...flags: readonly string[]): string => {
  const program = `
    import { createSecureContext } from ${JSON.stringify(join(lib, 'index.js'))}
    process.on('warning', ({ code, message }) => code === 'IKE_NOT_ACCELERATED' && console.log(message))
    try {
      for (const psk of ['sixteen octets 1', 'sixteen octets 2']) createSecureContext({ psk, accelerate: '${accelerate}' })
      console.log('accepted')
    } catch (error) { console.log(error.code, error.message) }`
  const { stdout } = spawnSync(
    process.execPath,
    [...flags, '--no-warnings', '--input-type=module', '-e', program],
    { encoding: 'utf8', env: { ...process.env, NODE_OPTIONS: '' } },
  )
  return stdout.trim()
}

t.test('what native functions need of Node and of the system', async t => {
  t.equal(ffiProblemOf('26.0.0', 'linux', 'x64'), undefined)
  t.equal(ffiProblemOf('27.1.0', 'linux', 'arm64'), undefined)
  t.equal(ffiProblemOf('24.21.0', 'linux', 'x64'), 'on Node 26 or newer, and this is Node 24.21.0')
  t.equal(ffiProblemOf('26.10.0', 'darwin', 'arm64'), 'on Linux, not darwin')
  t.equal(ffiProblemOf('26.10.0', 'linux', 's390x'), 'on x64 and arm64, not s390x')
})

t.test('a value that is none is refused on every Node', async t => {
  const message =
    "The option \"accelerate\" must be one of 'auto', 'off', 'ffi'. Received type string ('gso')"
  t.throws(() => createSecureContext({ psk, accelerate: 'gso' as 'ffi' }), {
    code: 'ERR_INVALID_ARG_VALUE',
    option: 'accelerate',
    message,
  })
})

t.test(`'ffi' is refused with what is missing${notElsewhere}`, { skip: isHere }, async t => {
  t.throws(() => createSecureContext({ psk, accelerate: 'ffi' }), {
    code: 'ERR_INVALID_ARG_VALUE',
    option: 'accelerate',
    message: `The option "accelerate" must be 'auto' or 'off': 'ffi' works ${problem}. Received type string ('ffi')`,
  })
})

t.test(`'auto' does without, after one warning${notElsewhere}`, { skip: isHere }, async t => {
  t.equal(
    say('auto'),
    `accepted\nNothing is accelerated: 'accelerate' works ${problem}`,
    'two contexts, one warning',
  )
})

t.test(`flags of Node take native functions away${notHere}`, { skip: !isHere }, async t => {
  t.equal(say('ffi'), 'accepted')
  t.equal(say('auto'), 'accepted')
  const cases = [
    ['--no-experimental-ffi', 'where node:ffi is not switched off (--no-experimental-ffi)'],
    ['--permission', 'under --permission only with --allow-ffi'],
  ] as const
  for (const [flag, words] of cases) {
    const flags = flag === '--permission' ? [flag, '--allow-fs-read=*'] : [flag]
    t.match(say('ffi', ...flags), `ERR_INVALID_ARG_VALUE`)
    t.match(say('ffi', ...flags), `must be 'auto' or 'off': 'ffi' works ${words}. Received`)
    t.equal(say('auto', ...flags), `accepted\nNothing is accelerated: 'accelerate' works ${words}`)
  }
  t.equal(say('ffi', '--permission', '--allow-fs-read=*', '--allow-ffi'), 'accepted')
})

/** A Node that was linked with an OpenSSL elsewhere, and shows no function of it. */
const WITHOUT_OPENSSL = `
  const { DynamicLibrary } = process.getBuiltinModule('node:ffi')
  const { getSymbol } = DynamicLibrary.prototype
  DynamicLibrary.prototype.getSymbol = function (name) {
    if (name.startsWith('EVP_')) throw new Error('dlsym failed')
    return getSymbol.call(this, name)
  }`

t.test(`a Node whose executable has no OpenSSL${notHere}`, { skip: !isHere }, async t => {
  const flags = ['--import', `data:text/javascript,${encodeURIComponent(WITHOUT_OPENSSL)}`]
  const words = 'with a Node whose executable has the function EVP_CIPHER_CTX_new'
  t.match(say('ffi', ...flags), `must be 'auto' or 'off': 'ffi' works ${words}. Received`)
  t.equal(say('auto', ...flags), `accepted\nNothing is accelerated: 'accelerate' works ${words}`)
})

t.test(`functions, memory and errors of the C library${notHere}`, { skip: !isHere }, async t => {
  const errnoAt = nativeFunction<bigint>('__errno_location', [], 'pointer')()
  const close = nativeFunction('close', ['i32'], 'i32')
  t.equal(close(-1), -1)
  t.equal(readInt32(errnoAt), constants.errno.EBADF)
  const memory = new NativeMemory(64)
  const structure = new NativeMemory(16)
  structure.setPointer(8, memory)
  t.equal(structure.view.getBigUint64(8, true), memory.pointer)
  memory.view.setInt32(0, 77, true)
  t.equal(readInt32(memory.pointer), 77)
  t.throws(() => nativeFunction('no_such_function', [], 'void'), /no_such_function/)
})

t.test(`native code calls back${notHere}`, { skip: !isHere }, async t => {
  const seen: unknown[] = []
  const note = nativeCallback(['pointer', 'pointer'], (...values) => void seen.push(values[1]))
  nativeFunction('uv_walk', ['pointer', 'pointer', 'pointer'], 'void')(
    eventLoop(),
    note.pointer,
    5n,
  )
  note.release()
  t.ok(seen.length > 0, "libuv has shown the handles of this thread's loop")
  t.ok(seen.every(argument => argument === 5n))
})
