/** Diagnostics: net's own channels, which monitoring tools already listen to, and NODE_DEBUG=ike-socket. */
import { channel } from 'node:diagnostics_channel'
import { debuglog } from 'node:util'
import type { KeyLogEntry, TraceEvent, Tracer } from '../base/trace.ts'

export const channels = {
  clientSocket: channel('net.client.socket'),
  serverSocket: channel('net.server.socket'),
  /** Every `TraceEvent`: exchanges by name, refusals with their reasons. */
  trace: channel('ike-socket:trace'),
}

const log = debuglog('ike-socket')

/** Publishes to the channel and to NODE_DEBUG; free when nobody listens. */
export const makeTracer = (keyLog: ((entry: KeyLogEntry) => void) | undefined): Tracer => ({
  get enabled() {
    return channels.trace.hasSubscribers || log.enabled
  },
  emit(event: TraceEvent) {
    if (channels.trace.hasSubscribers) channels.trace.publish(event)
    if (log.enabled) log('%s %j', event.name, event.facts)
  },
  keyLog,
})
