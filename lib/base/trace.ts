/**
 * What the core tells an observer. Events name exchanges, SPIs and sizes, never secrets. Callers guard
 * with `if (tracer.enabled)`, so an untraced run pays nothing for building an event.
 */
import type { Millis } from './environment.ts'

export interface TraceEvent {
  /** Dotted name, for example `ike.request.sent`, `esp.drop`, `child.rekeyed`. */
  readonly name: string
  readonly at: Millis
  readonly facts: Readonly<Record<string, string | number | boolean | undefined>>
}

/** Key octets for an opt-in key log. Never part of a `TraceEvent`. */
export type KeyLogEntry =
  | {
      readonly kind: 'ike'
      readonly spiI: Uint8Array
      readonly spiR: Uint8Array
      readonly encr: number
      readonly keyLength: number
      readonly integ: number
      readonly skEi: Uint8Array
      readonly skEr: Uint8Array
      readonly skAi: Uint8Array
      readonly skAr: Uint8Array
    }
  | {
      readonly kind: 'esp'
      readonly source: string
      readonly destination: string
      readonly spi: number
      readonly encr: number
      readonly keyLength: number
      readonly integ: number
      readonly encryptionKey: Uint8Array
      readonly integrityKey: Uint8Array
    }

export interface Tracer {
  readonly enabled: boolean
  emit(event: TraceEvent): void
  /** Present only when the user asked for a key log. */
  readonly keyLog?: ((entry: KeyLogEntry) => void) | undefined
}

export const SILENT: Tracer = { enabled: false, emit() {} }
