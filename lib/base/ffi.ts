/**
 * Functions of the C library, of libuv and of OpenSSL that Node itself has loaded, called through `node:ffi`: what
 * accelerates and has no interface in Node. It is experimental there, so it is looked at only when an option asks for it.
 *
 * Native code knows addresses and holds nothing: memory that it may touch is a `NativeMemory` that somebody refers to for
 * as long as it may, and so is a callback.
 */
import { isMainThread } from 'node:worker_threads'
import { ffiProblemOf } from './supported-node.ts'

/** Of an argument or a result; pointers are numbers of 64 bits. */
export type NativeType = 'void' | 'i32' | 'u32' | 'i64' | 'u64' | 'pointer'
export type NativeValue = number | bigint

/**
 * The type by which a call that is made for each packet hands over an `int` or `unsigned int` that is not negative, as a
 * BigInt. V8 calls a function straight from compiled code where all its arguments are pointers; where some are smaller
 * the call goes through the interpreter of node:ffi, which takes 20 times as long. On the processors that
 * base/supported-node.ts names, such an argument stands in a register of 64 bits, of which the callee reads the lower half.
 */
export const WORD = 'pointer'
export type NativeFunction<Result = number> = (...values: NativeValue[]) => Result

interface Signature {
  readonly arguments: readonly NativeType[]
  readonly return: NativeType
}

/** As much of it as is used here; the types of Node 20 lack it. */
interface FfiModule {
  readonly DynamicLibrary: new (path: null) => DynamicLibrary
  getRawPointer(memory: ArrayBuffer): bigint
  getInt32(pointer: bigint, offset: number): number
  getCurrentEventLoop(): bigint
}

interface DynamicLibrary {
  getSymbol(name: string): bigint
  getFunction(name: string, signature: Signature): NativeFunction<never>
  registerCallback(signature: Signature, callback: (...values: never[]) => void): bigint
  unregisterCallback(pointer: bigint): void
}

/** What the accelerated parts call. They are all of one Node, so one that is missing tells of a Node made in another way. */
const NEEDED = [
  '__errno_location',
  'socket',
  'bind',
  'connect',
  'close',
  'if_indextoname',
  'if_nametoindex',
  'getsockname',
  'getsockopt',
  'setsockopt',
  'sendmsg',
  'recvmsg',
  'uv_handle_size',
  'uv_poll_init',
  'uv_poll_start',
  'uv_close',
  'uv_ref',
  'uv_unref',
  'EVP_CIPHER_CTX_new',
  'EVP_CIPHER_CTX_free',
  'EVP_CIPHER_CTX_ctrl',
  'EVP_aes_128_gcm',
  'EVP_aes_192_gcm',
  'EVP_aes_256_gcm',
  'EVP_chacha20_poly1305',
  'EVP_EncryptInit_ex',
  'EVP_EncryptUpdate',
  'EVP_EncryptFinal_ex',
  'EVP_DecryptInit_ex',
  'EVP_DecryptUpdate',
  'EVP_DecryptFinal_ex',
]

/** Memory outside V8's heap, which never moves. Its address means something only while this is referred to. */
export class NativeMemory {
  readonly bytes: Uint8Array<ArrayBuffer>
  readonly view: DataView
  readonly pointer: bigint

  /** Of zeros, or `memory` as it is. */
  constructor(
    length: number,
    // The ArrayBuffer of a small view may lie in V8's heap until somebody asks for it; one that is made so does not.
    memory = new ArrayBuffer(length),
  ) {
    this.bytes = new Uint8Array(memory)
    this.view = new DataView(memory)
    this.pointer = native().module.getRawPointer(memory)
  }

  /** Writes an address into a structure; `target` must live as long as this does. */
  setPointer(offset: number, target: NativeMemory): void {
    this.view.setBigUint64(offset, target.pointer, true)
  }
}

/** An option `accelerate`, once it has been read: native functions are wanted, and can be called. */
export const isAccelerated = (accelerate: 'auto' | 'off' | 'ffi'): boolean =>
  accelerate !== 'off' && ffiProblem() === undefined

/** What all of this process use. */
interface Native {
  readonly module: FfiModule
  readonly library: DynamicLibrary
}

/** Undefined: nobody has asked yet. */
let found: Native | string | undefined

const find = (): Native | string => {
  const { versions, platform, arch } = process
  const problem = ffiProblemOf(versions.node, platform, arch)
  if (problem !== undefined) return problem
  // libuv's handles of a thread that is ended from outside cannot be closed, and then the process is aborted.
  if (!isMainThread) return 'in the main thread of a process, not in a worker thread'
  // The types of Node 20 do not know its name.
  const module = process.getBuiltinModule('node:ffi') as FfiModule | undefined
  if (module === undefined) return 'where node:ffi is not switched off (--no-experimental-ffi)'
  try {
    const library = new module.DynamicLibrary(null)
    const missing = NEEDED.find(name => !hasSymbol(library, name))
    return missing === undefined
      ? { module, library }
      : `with a Node whose executable has the function ${missing}`
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    return code === 'ERR_ACCESS_DENIED'
      ? 'under --permission only with --allow-ffi'
      : `where node:ffi does, and it says: ${message}`
  }
}

const hasSymbol = (library: DynamicLibrary, name: string): boolean => {
  try {
    return library.getSymbol(name) !== 0n
  } catch {
    return false
  }
}

/** Where native functions can be called, in words that follow "it works"; undefined: here. */
export const ffiProblem = (): string | undefined => {
  found ??= find()
  return typeof found === 'string' ? found : undefined
}

const native = (): Native => {
  const problem = ffiProblem()
  if (problem !== undefined) throw new Error(`node:ffi works ${problem}`)
  return found as Native
}

/** One of Node's, with the same signature wherever it is asked for. */
export const nativeFunction = <Result = number>(
  name: string,
  parameters: readonly NativeType[],
  result: NativeType,
): NativeFunction<Result> => native().library.getFunction(name, signature(parameters, result))

/**
 * Where octets lie that somebody refers to for as long as the address is used, and that are not moved to another
 * ArrayBuffer meanwhile.
 */
export const addressOf = ({ buffer, byteOffset }: Uint8Array): bigint => {
  if (buffer !== asked.memory) {
    asked.pointer = native().module.getRawPointer(buffer as ArrayBuffer)
    asked.memory = buffer
  }
  return asked.pointer + BigInt(byteOffset)
}

/** The memory whose address was asked for last, which most often is the one that is asked for next. */
const asked: { memory: ArrayBufferLike | undefined; pointer: bigint } = {
  memory: undefined,
  pointer: 0n,
}

/** A function of ours that native code calls. It must not throw, and must be referred to by its address until `release`. */
export const nativeCallback = (
  parameters: readonly NativeType[],
  callback: (...values: never[]) => void,
): { readonly pointer: bigint; release(): void } => {
  const { library } = native()
  const pointer = library.registerCallback(signature(parameters, 'void'), callback)
  return { pointer, release: () => library.unregisterCallback(pointer) }
}

/** The keys of a signature were others in the first versions that had it. */
const signature = (parameters: readonly NativeType[], result: NativeType): Signature =>
  ({ arguments: parameters, return: result, parameters, result }) as Signature

/** libuv's, of this thread. */
export const eventLoop = (): bigint => native().module.getCurrentEventLoop()

/** A number of 32 bits at an address, such as the one of `errno`. */
export const readInt32 = (pointer: bigint): number => native().module.getInt32(pointer, 0)
