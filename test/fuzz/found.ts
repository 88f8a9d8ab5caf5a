/** Inputs that showed a mistake once. */
export const FOUND: readonly { readonly target: string; readonly input: string }[] = []
