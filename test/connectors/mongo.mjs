// So much of a MongoDB server that its driver connects, inserts and finds: Debian has none. Messages are OP_MSG, and OP_QUERY
// with which drivers greet; their documents are read and written by the `bson` that the driver brings.
import { once } from 'node:events'
import { createRequire } from 'node:module'
import net from 'node:net'

const OP_REPLY = 1
const OP_QUERY = 2004
const OP_MSG = 2013
const HEADER = 16

const HELLO = {
  helloOk: true,
  isWritablePrimary: true,
  ismaster: true,
  maxBsonObjectSize: 1 << 24,
  maxMessageSizeBytes: 48_000_000,
  maxWriteBatchSize: 100_000,
  minWireVersion: 0,
  maxWireVersion: 21,
  readOnly: false,
}

/** The command of an OP_MSG: its body, with the sequences of documents that stand beside it. */
const readMessage = (message, bson) => {
  let command = {}
  for (let at = HEADER + 4; at < message.length;) {
    const kind = message[at++]
    const size = message.readUInt32LE(at)
    const part = message.subarray(at, at + size)
    at += size
    if (kind === 0) {
      command = { ...command, ...bson.deserialize(part) }
      continue
    }
    const nameEnd = part.indexOf(0, 4)
    const documents = []
    for (let from = nameEnd + 1; from < part.length;) {
      const length = part.readUInt32LE(from)
      documents.push(bson.deserialize(part.subarray(from, from + length)))
      from += length
    }
    command[part.toString('latin1', 4, nameEnd)] = documents
  }
  return command
}

const readQuery = (message, bson) => {
  const afterName = message.indexOf(0, HEADER + 4) + 1
  return bson.deserialize(message.subarray(afterName + 8))
}

const frame = (operation, answers, prefix, document, bson) => {
  const body = bson.serialize(document)
  const header = Buffer.alloc(HEADER)
  header.writeUInt32LE(HEADER + prefix.length + body.length, 0)
  header.writeUInt32LE(answers, 8)
  header.writeUInt32LE(operation, 12)
  return Buffer.concat([header, prefix, body])
}

/** Flags and cursor are none, the document is the first of one. */
const replyPrefix = () => {
  const prefix = Buffer.alloc(20)
  prefix.writeUInt32LE(1, 16)
  return prefix
}

const answer = (command, collections) => {
  const [name] = Object.keys(command)
  const space = `${command.$db}.${command[name]}`
  const documents = collections.get(space) ?? []
  switch (name) {
    case 'hello':
    case 'ismaster':
      return { ...HELLO, ok: 1 }
    case 'ping':
      return { ok: 1 }
    case 'insert':
      collections.set(space, [...documents, ...command.documents])
      return { n: command.documents.length, ok: 1 }
    case 'find': {
      const wanted = Object.entries(command.filter)
      const found = documents.filter(each => wanted.every(([key, value]) => each[key] === value))
      return { cursor: { id: 0n, ns: space, firstBatch: found }, ok: 1 }
    }
    default:
      return { ok: 0, errmsg: `no such command: '${name}'`, code: 59, codeName: 'CommandNotFound' }
  }
}

/** Starts it at that TCP port of 127.0.0.1. It does not hold the process. */
export const startMongo = async (_folder, port, { examples }) => {
  const driver = createRequire(`${examples}/package.json`).resolve('mongodb')
  const bson = createRequire(driver)('bson')
  const collections = new Map()
  const server = net.createServer(socket => {
    let rest = Buffer.alloc(0)
    socket.on('error', () => socket.destroy())
    socket.on('data', piece => {
      rest = Buffer.concat([rest, piece])
      while (rest.length >= HEADER && rest.length >= rest.readUInt32LE(0)) {
        const message = rest.subarray(0, rest.readUInt32LE(0))
        rest = rest.subarray(message.length)
        const asks = message.readUInt32LE(4)
        const isQuery = message.readUInt32LE(12) === OP_QUERY
        const read = isQuery ? readQuery : readMessage
        const [operation, prefix] = isQuery ? [OP_REPLY, replyPrefix()] : [OP_MSG, Buffer.alloc(5)]
        const document = answer(read(message, bson), collections)
        socket.write(frame(operation, asks, prefix, document, bson))
      }
    })
  })
  server.listen(port, '127.0.0.1').unref()
  await once(server, 'listening')
}
