/** The identity of a responder that has not been given one: the address at which it was asked (RFC 7296 §3.5). */
import t from 'tap'
import { formatAddress, parseAddress } from '../../lib/base/address.ts'
import { IkePair } from '../harness/ike-pair.ts'

/** Who the initiator says it has reached; `own`: what a responder has that is bound to all addresses. */
const reached = (own: readonly string[] | undefined, asked?: string): string | undefined => {
  const pair = new IkePair()
  const { a, b } = pair
  if (own !== undefined) {
    Object.assign(b.path, { localAddress: new Uint8Array(0) })
    Object.assign(b.config, { ownAddresses: () => own.map(text => parseAddress(text)!) })
  }
  if (asked !== undefined) {
    // A NAT before the responder: it has another address than the one that was asked.
    Object.assign(a.path, { remoteAddress: parseAddress(asked)! })
  }
  pair.initiate()
  pair.settle()
  return a.all('established')[0]?.peer.identityText
}

t.test('a responder is the address that was asked, also where the system does not tell it', t => {
  const here = reached(undefined)!
  t.equal(here, formatAddress(new IkePair().a.path.remoteAddress))
  const others = ['192.0.2.77', '2001:db8::77']
  t.equal(reached([...others, here]), here)
  t.equal(reached([here, ...others]), here)
  t.end()
})

t.test('behind a NAT a responder names itself by an address of its own', t => {
  t.equal(reached(['127.0.0.1', '2001:db8::77', '192.0.2.77'], '203.0.113.9'), '192.0.2.77')
  t.equal(reached([]), '0.0.0.0')
  t.end()
})
