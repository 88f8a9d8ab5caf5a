/** A port of UDP that is free now, for a program that must know it before it starts. */
import { createSocket } from 'node:dgram'
import { once } from 'node:events'

export const freePort = async (): Promise<number> => {
  const socket = createSocket('udp4').bind(0)
  await once(socket, 'listening')
  const { port } = socket.address()
  socket.close()
  return port
}
