/** Deadlines of many owners, the earliest first: a binary heap whose members know their place in it. */
import type { Millis } from './environment.ts'

export interface Scheduled {
  /** When this one wants to be called; kept by the schedule. */
  dueAt: Millis
  /** Place in the heap, -1 outside it; kept by the schedule. */
  heapIndex: number
}

export class Schedule<T extends Scheduled> {
  private readonly heap: T[] = []

  next(): Millis {
    return this.heap[0]?.dueAt ?? Infinity
  }

  first(): T | undefined {
    return this.heap[0]
  }

  /** Moves a member to its new deadline, adding or removing (`Infinity`) it as need be. */
  update(member: T, dueAt: Millis): void {
    if (member.heapIndex >= 0 && member.dueAt === dueAt) return
    member.dueAt = dueAt
    if (dueAt === Infinity) return this.remove(member)
    if (member.heapIndex < 0) {
      member.heapIndex = this.heap.length
      this.heap.push(member)
    }
    this.rise(member)
    this.sink(member)
  }

  remove(member: T): void {
    const at = member.heapIndex
    if (at < 0) return
    member.heapIndex = -1
    const last = this.heap.pop()!
    if (last === member) return
    this.place(last, at)
    this.rise(last)
    this.sink(last)
  }

  private place(member: T, at: number): void {
    this.heap[at] = member
    member.heapIndex = at
  }

  private rise(member: T): void {
    while (member.heapIndex > 0) {
      const parentAt = (member.heapIndex - 1) >> 1
      const parent = this.heap[parentAt]!
      if (parent.dueAt <= member.dueAt) return
      this.place(parent, member.heapIndex)
      this.place(member, parentAt)
    }
  }

  private sink(member: T): void {
    for (;;) {
      const leftAt = 2 * member.heapIndex + 1
      const left = this.heap[leftAt]
      if (left === undefined) return
      const right = this.heap[leftAt + 1]
      const child = right !== undefined && right.dueAt < left.dueAt ? right : left
      if (child.dueAt >= member.dueAt) return
      const childAt = child.heapIndex
      this.place(child, member.heapIndex)
      this.place(member, childAt)
    }
  }
}
