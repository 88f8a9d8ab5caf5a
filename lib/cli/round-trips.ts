/** Of round trips in milliseconds; 0 where there are none. */
export const summaryOf = (
  times: readonly number[],
): { readonly min: number; readonly median: number; readonly max: number } => {
  const sorted = [...times].sort((a, b) => a - b)
  const at = (share: number): number => sorted[Math.floor((sorted.length - 1) * share)] ?? 0
  return { min: at(0), median: at(0.5), max: at(1) }
}
