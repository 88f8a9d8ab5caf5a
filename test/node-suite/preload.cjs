// Loaded before a test of Node's: its `net` and its `http` are ours.
'use strict'
const Module = require('node:module')
const { join } = require('node:path')

const ours = name => require(join(process.env.IKE_SOCKET_ROOT, 'dist', name))
const { default: net } = ours('net.js')
const secureHttp = ours('http.js')
const http = require('node:http')
const plainNet = require('node:net')

// As http's classes, they may be called without `new`.
const Agent = new Proxy(secureHttp.Agent, {
  apply: (_target, _self, args) => new secureHttp.Agent(...args),
})
const Server = new Proxy(secureHttp.Server, {
  construct: (Class, [first, second], target) =>
    Reflect.construct(Class, typeof first === 'function' ? [{}, first] : [first, second], target),
  apply: (_target, _self, args) => new Server(...args),
})
const own = { Agent, Server, createServer: (...args) => new Server(...args) }
// What names no agent uses this one, or its class.
http.globalAgent = new Agent({ keepAlive: true, scheduling: 'lifo', timeout: 5000 })
const replaced = Object.create(http, Object.getOwnPropertyDescriptors(own))

const modules = { net, http: replaced, _http_agent: replaced }
const load = Module._load
Module._load = function (request, parent, isMain) {
  return modules[request.replace(/^node:/, '')] ?? load.call(this, request, parent, isMain)
}

// An import has the properties of the builtin module itself.
if (process.argv[1]?.endsWith('.mjs')) {
  // Node's own parts go on with its classes.
  const { connect, createConnection, createServer } = net
  Object.assign(plainNet, { connect, createConnection, createServer })
  Object.assign(http, own)
  Module.syncBuiltinESMExports()
}
