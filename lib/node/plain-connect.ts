/** Connections that IKE itself needs, outside ESP: a policy for the program's connections, installed later, is not for them. */
import { Socket, type SocketConnectOpts } from 'node:net'

const { connect } = Socket.prototype

export const plainConnect = (options: SocketConnectOpts): Socket =>
  connect.call<Socket, [SocketConnectOpts], Socket>(new Socket(), options)
