/** How much can be reached from an object: a measure of memory that is the same in every run. */

export interface Reach {
  readonly objects: number
  readonly octets: number
}

export const reachOf = (root: object): Reach => {
  const seen = new Set<object>([root])
  const pending: object[] = [root]
  const buffers = new Set<ArrayBufferLike>()
  const visit = (value: unknown): void => {
    if (typeof value !== 'object' || value === null || seen.has(value)) return
    seen.add(value)
    pending.push(value)
  }
  for (let object = pending.pop(); object !== undefined; object = pending.pop()) {
    if (ArrayBuffer.isView(object)) {
      buffers.add(object.buffer)
      continue
    }
    if (object instanceof Map || object instanceof Set) {
      for (const entry of object as Iterable<unknown>) visit(entry)
    }
    for (const name of Object.getOwnPropertyNames(object)) visit(Reflect.get(object, name))
  }
  const octets = [...buffers].reduce((sum, { byteLength }) => sum + byteLength, 0)
  return { objects: seen.size, octets }
}
