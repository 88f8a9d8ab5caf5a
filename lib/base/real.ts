/**
 * A zero that V8 keeps as it keeps a time, or a number of 32 bits without a sign, and not as a small integer. It keeps
 * the two in different ways, and throws away what it has compiled for a class when a field of it turns out to need the
 * other one; each new connection would be such an occasion. A field that will have such numbers begins with this.
 */
export const ZERO = -0
