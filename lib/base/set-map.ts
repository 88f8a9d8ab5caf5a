/** Sets by a key, which are there as long as something is in them. */

export const addTo = <Key, Value>(sets: Map<Key, Set<Value>>, key: Key, value: Value): void => {
  const known = sets.get(key)
  if (known === undefined) sets.set(key, new Set([value]))
  else known.add(value)
}

export const removeFrom = <Key, Value>(
  sets: Map<Key, Set<Value>>,
  key: Key,
  value: Value,
): void => {
  const known = sets.get(key)
  known?.delete(value)
  if (known?.size === 0) sets.delete(key)
}
