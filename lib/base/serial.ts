/** Comparison of 32-bit sequence numbers that wrap (RFC 9293 §3.4). Any number is taken modulo 2^32. */

export const before = (a: number, b: number): boolean => ((a - b) | 0) < 0
export const beforeOrAt = (a: number, b: number): boolean => ((a - b) | 0) <= 0
export const after = (a: number, b: number): boolean => ((a - b) | 0) > 0
export const afterOrAt = (a: number, b: number): boolean => ((a - b) | 0) >= 0

/** How far `a` is ahead of `b`, negative when behind; right while they are less than 2^31 apart. */
export const distance = (a: number, b: number): number => (a - b) | 0

/** Moves a sequence number on, staying an unsigned 32-bit number. */
export const advance = (a: number, by: number): number => (a + by) >>> 0

export const later = (a: number, b: number): number => (after(a, b) ? a : b)
export const earlier = (a: number, b: number): number => (before(a, b) ? a : b)
