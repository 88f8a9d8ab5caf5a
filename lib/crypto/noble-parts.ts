/** The parts of the noble libraries that we use. */
export { poly1305 } from '@noble/ciphers/_poly1305.js'
export { cbc, gcm } from '@noble/ciphers/aes.js'
export { ed25519, x25519 } from '@noble/curves/ed25519.js'
export { ed448, x448 } from '@noble/curves/ed448.js'
export { p256, p384, p521 } from '@noble/curves/nist.js'
export { hmac } from '@noble/hashes/hmac.js'
export { sha1 } from '@noble/hashes/legacy.js'
export { sha256, sha384, sha512 } from '@noble/hashes/sha2.js'
