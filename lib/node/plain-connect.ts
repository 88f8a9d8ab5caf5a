/** Connections that IKE itself needs, outside ESP: a policy for the program's connections, installed later, is not for them. */
import { Socket, type SocketConnectOpts } from 'node:net'

const { connect } = Socket.prototype
const plain = new WeakSet<Socket>()

export const plainConnect = (options: SocketConnectOpts): Socket => {
  const socket = new Socket()
  plain.add(socket)
  return connect.call<Socket, [SocketConnectOpts], Socket>(socket, options)
}

/** `plainConnect` made it. */
export const isPlain = (socket: Socket): boolean => plain.has(socket)
