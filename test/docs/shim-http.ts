/** `ike-socket/http` for blocks of the documentation. */
export * from '../../lib/http.ts'
export { configure } from './shim-net.ts'
