/** `node:http` inside ESP: `createServer(options, handler)`, `Server` and `Agent`. */
import './node/check-node.ts'
export { Agent, createServer, Server, type HttpServerOptions } from './api/http-server.ts'
export { configure, type Configuration } from './api/configuration.ts'
