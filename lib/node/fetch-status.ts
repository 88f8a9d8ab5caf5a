/**
 * Lists of revoked certificates (RFC 5280 §4.2.1.13) and OCSP answers (RFC 6960 appendix A.1), fetched for
 * certificates that already lead to a trust anchor. What comes back is signed, so plain HTTP is what the
 * RFCs use; size, time and redirections are bounded, and a failure gives nothing.
 */
import { request, type ClientRequest } from 'node:http'
import type { StatusData, StatusSource } from '../core/events.ts'

const LARGEST = 8 << 20
const PATIENCE = 5000

export const fetchStatus = async (wanted: readonly StatusSource[]): Promise<StatusData> => {
  const answers = await Promise.all(
    wanted.map(async source => ({ kind: source.kind, octets: await fetchFirst(source) })),
  )
  const ofKind = (kind: StatusSource['kind']): readonly Uint8Array[] =>
    answers.flatMap(answer =>
      answer.kind === kind && answer.octets !== undefined ? [answer.octets] : [],
    )
  return { crls: ofKind('crl'), ocsp: ofKind('ocsp') }
}

/** The first place that answers. */
const fetchFirst = async (source: StatusSource): Promise<Uint8Array | undefined> => {
  for (const url of source.urls) {
    const octets = await fetchOne(url, source.kind === 'ocsp' ? source.request : undefined)
    if (octets !== undefined) return octets
  }
  return undefined
}

const fetchOne = (url: string, body: Uint8Array | undefined): Promise<Uint8Array | undefined> =>
  new Promise(resolve => {
    let outgoing: ClientRequest
    try {
      // Node refuses other schemes than http: here, file: among them.
      outgoing = request(url, {
        method: body === undefined ? 'GET' : 'POST',
        timeout: PATIENCE,
        signal: AbortSignal.timeout(PATIENCE),
        headers: body === undefined ? {} : { 'content-type': 'application/ocsp-request' },
      })
    } catch {
      return resolve(undefined)
    }
    outgoing.on('error', () => resolve(undefined))
    outgoing.on('timeout', () => outgoing.destroy())
    outgoing.on('response', response => {
      const chunks: Buffer[] = []
      let length = 0
      response.on('data', (chunk: Buffer) => {
        length += chunk.length
        if (length > LARGEST) response.destroy()
        else chunks.push(chunk)
      })
      response.on('error', () => resolve(undefined))
      response.on('close', () => resolve(undefined))
      response.on('end', () =>
        resolve(response.statusCode === 200 ? new Uint8Array(Buffer.concat(chunks)) : undefined),
      )
    })
    outgoing.end(body)
  })
