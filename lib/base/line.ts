/**
 * Members that wait for their turn, each once. They hold the links themselves: a `Set` to which they come and from which
 * they go for each datagram makes a new table again and again, in the old part of V8's heap, and each makes V8 look
 * whether it is time to mark.
 */
export interface InLine<T> {
  /** The members before and after it; the line sets them. */
  preceding: T | undefined
  following: T | undefined
  isInLine: boolean
}

export class Line<T extends InLine<T>> {
  private head: T | undefined
  private tail: T | undefined

  get first(): T | undefined {
    return this.head
  }

  /** To the end, if it does not wait already. */
  add(member: T): void {
    if (member.isInLine) return
    member.isInLine = true
    if (this.tail === undefined) this.head = member
    else this.tail.following = member
    member.preceding = this.tail
    this.tail = member
  }

  /** The first one leaves. */
  shift(): T | undefined {
    const { head } = this
    if (head !== undefined) this.delete(head)
    return head
  }

  /** It leaves, wherever it stands. */
  delete(member: T): void {
    if (!member.isInLine) return
    const { preceding, following } = member
    if (preceding === undefined) this.head = following
    else preceding.following = following
    if (following === undefined) this.tail = preceding
    else following.preceding = preceding
    member.preceding = undefined
    member.following = undefined
    member.isInLine = false
  }

  /** The first one goes behind all others. */
  rotate(): void {
    if (this.head === this.tail) return
    this.add(this.shift()!)
  }
}
