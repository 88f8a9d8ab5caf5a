// A device that reports over MQTT and sleeps between its reports, with the low-power profile of GUIDES.md, and the office that reads
// them. It wants an MQTT broker at 127.0.0.1, for example Debian's mosquitto, at MQTT_PORT or 1883 (and `npm ci --prefix examples`):
//   node examples/iot.mjs
import mqtt, { MqttClient } from 'mqtt'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { createSecureSocket } from 'ike-socket'
import { startForward } from './sidecar.mjs'

/** Both ends have it: nothing is sent that a sleeping device would have to answer. */
const lowPower = {
  natKeepalive: 0,
  livenessInterval: 86_400_000,
  idleTimeout: 0,
  ikeLifetime: 86_400_000,
  childLifetime: 86_400_000,
}
/** An hour, in a device. */
const SLEEP_MS = 1000
const psk = randomBytes(32).toString('hex')

// The host of the broker: `ike-socket forward -R` brings it into ESP.
const { MQTT_PORT = '1883' } = process.env
const folder = mkdtempSync(join(tmpdir(), 'ike-'))
process.once('exit', () => rmSync(folder, { recursive: true }))
const config = join(folder, 'broker.json')
const broker = { ...lowPower, psk: { 'device.internal': psk }, localId: 'broker.internal' }
writeFileSync(config, JSON.stringify({ ...broker, ikePort: 0 }), { mode: 0o600 })
const forward = await startForward(config, `1883:127.0.0.1:${MQTT_PORT}`)

// The office is on that host too, so in the clear.
const office = await mqtt.connectAsync(`mqtt://127.0.0.1:${MQTT_PORT}`)
await office.subscribeAsync('reports')

// The device: a connection for each report, all over the SA of the first one.
const report = async text => {
  const socket = createSecureSocket({
    ...lowPower,
    host: '127.0.0.1',
    port: 1883,
    ikePort: forward.udp,
    psk,
    localId: 'device.internal',
    remoteId: 'broker.internal',
  })
  // MQTT's own keepalive would wake the device too.
  const client = new MqttClient(() => socket, { keepalive: 0, reconnectPeriod: 0 })
  await once(client, 'connect')
  await client.publishAsync('reports', text, { qos: 1 })
  const { spiI } = socket.session.info
  await client.endAsync()
  return spiI
}

const spis = new Set()
for (const temperature of ['21.5 °C', '21.7 °C', '22.0 °C']) {
  if (spis.size > 0) await sleep(SLEEP_MS)
  const arrived = once(office, 'message')
  spis.add(await report(temperature))
  console.log(`the office reads ${String((await arrived)[1])}`)
}
console.log(`SAs for all of them: ${spis.size}`)

await office.endAsync()
await forward.stop()
