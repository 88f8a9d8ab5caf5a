/** Compiled and never run: the same package by `require()`, from CommonJS. */
import net = require('node:net')
import secure = require('ike-socket/net')
import socket = require('ike-socket')

export const made: net.Socket = secure.connect({ port: 1, psk: 'x' })
export const server: net.Server = socket.createSecureServer({ psk: 'x' })
