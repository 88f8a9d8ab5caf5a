// Loaded before a test of Node's: its `net` is ours.
'use strict'
const Module = require('node:module')
const { join } = require('node:path')

const { default: net } = require(join(process.env.IKE_SOCKET_ROOT, 'dist/net.js'))
const load = Module._load
Module._load = function (request, parent, isMain) {
  return request === 'net' || request === 'node:net'
    ? net
    : load.call(this, request, parent, isMain)
}
