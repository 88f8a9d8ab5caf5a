/**
 * The last place that every TCP socket of this thread passes before the system: what connects or listens there is
 * refused unless the guard lets it, however it came there.
 */
import { Socket, type SocketConnectOpts } from 'node:net'
import { constants } from 'node:os'
import { isPlain } from './plain-connect.ts'

/** `owner`: the `net.Socket` or `net.Server`; undefined where there is none. */
type Ask = (owner: object | undefined, address: string, port: number) => boolean

export interface TcpGuard {
  readonly mayConnect: Ask
  readonly mayListen: Ask
}

/** What Node's native handles of TCP have. */
interface TcpHandle {
  connect(request: object, address: string, port: number): number
  connect6(request: object, address: string, port: number): number
  listen(backlog: number): number
  getsockname(out: { address: string; port: number }): number
}

/** A socket has its handle from the call of `connect` on and connects a tick later; this one is over before. */
const makeHandle = (): TcpHandle | undefined => {
  const socket = new Socket()
  const { connect } = Socket.prototype
  connect.call<Socket, [SocketConnectOpts], Socket>(socket, { host: '127.0.0.1', port: 1 })
  const { _handle } = socket as unknown as { _handle?: TcpHandle }
  socket.destroy()
  return _handle
}

/** Node keeps it under a symbol of its own. */
const ownerOf = (handle: object): object | undefined => {
  const symbols = Object.getOwnPropertySymbols(handle)
  const key = symbols.find(({ description }) => description === 'owner_symbol')
  return key && (Reflect.get(handle, key) as object)
}

const REFUSED = -constants.errno.EACCES

/** Before anything of ours replaces `net.Socket.prototype.connect`. False: it has no effect in this process. */
export const guardTcp = ({ mayConnect, mayListen }: TcpGuard): boolean => {
  const handle = makeHandle()
  if (handle === undefined) return false
  const prototype = Object.getPrototypeOf(handle) as TcpHandle
  const guarded = (own: TcpHandle['connect']): TcpHandle['connect'] =>
    function (this: TcpHandle, request, to, at) {
      // As the system reads them, and once.
      const address = String(to)
      const port = at & 0xffff
      const owner = ownerOf(this)
      const isOurs = owner instanceof Socket && isPlain(owner)
      if (!isOurs && !mayConnect(owner, address, port)) return REFUSED
      return own.call(this, request, address, port)
    }
  const { connect, connect6, listen } = prototype
  const guards: Partial<TcpHandle> = {
    connect: guarded(connect),
    connect6: guarded(connect6),
    listen(this: TcpHandle, backlog) {
      const place = { address: '', port: 0 }
      this.getsockname(place)
      return mayListen(ownerOf(this), place.address, place.port)
        ? listen.call(this, backlog)
        : REFUSED
    },
  }
  // Nobody replaces these again.
  return Object.entries(guards).every(([name, value]) =>
    Reflect.defineProperty(prototype, name, { value, writable: false, configurable: false }),
  )
}
