/** Our own packetdrill scripts, those of another stack where they are at hand, and the runner itself. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { runFolder, runScript, totals } from './packetdrill.ts'

t.test('our own scripts pass, each of them', t => {
  const verdicts = runFolder(join(process.cwd(), 'test/conformance/scripts'))
  t.ok(verdicts.size >= 49)
  for (const [name, verdict] of verdicts) t.strictSame(verdict, { kind: 'passed' }, name)
  t.end()
})

const FOREIGN = join(process.cwd(), '../shared/packetdrill')

if (!existsSync(FOREIGN)) {
  t.test('scripts of another stack (skipped: the folder with them is not here)', t => t.end())
} else {
  t.test('scripts of another stack pass, but where an RFC says otherwise', t => {
    const verdicts = runFolder(FOREIGN)
    const failed = [...verdicts].filter(([, { kind }]) => kind === 'failed')
    t.strictSame(failed, [])
    t.comment(totals(verdicts.values()))
    const passed = [...verdicts.values()].filter(({ kind }) => kind === 'passed')
    t.ok(passed.length >= 376, `${passed.length} passed`)
    t.end()
  })
}

const open = `
 0.00 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
+0.00 bind(3, ..., ...) = 0
+0.00 listen(3, 1) = 0
`
const established = `${open}
+0 < S 0:0(0) win 65535 <mss 1000,sackOK>
+0 > S. 0:0(0) ack 1
+0 < . 1:1(0) ack 1 win 65535
+0 accept(3, ..., ...) = 4
`

/** The same with a round trip. */
const distant = established.replace('+0 < . 1:1(0)', '+.04 < . 1:1(0)')

t.test('the runner tells a difference, and what it cannot run', t => {
  const script = (answer: string): string => `${open}
+0.00 < S  7:7(0)       win 65535 <mss 1000>
+0.00 > S. 0:0(0) ack ${answer} win 65535 <mss 1460>
`
  t.equal(runScript(script('8')).kind, 'passed')
  t.match(runScript(script('9')), { kind: 'failed', line: 7 })
  t.match(runScript(`${script('8')}+1.00 > . 1:1(0) ack 8`), { kind: 'failed', line: 8 })
  t.match(runScript('0.00 < [ect0] SEW 0:0(0) win 1'), { kind: 'notDrivable', why: /ECN/ })
  t.match(runScript('0 `frobnicate -x`'), { kind: 'notDrivable', why: /frobnicate/ })
  t.end()
})

t.test('a line without a time, or with any time, is followed by lines that have one', t => {
  const script = (answer: string): string => `${established}
write(4, ..., 100) = 100
* > P. 1:101(100) ack 1
< . 1:1(0) ack 101 win 65535
+0.1 write(4, ..., 100) = 100
+0 > P. 101:${answer}(100) ack 1
`
  t.equal(runScript(script('201')).kind, 'passed')
  t.match(runScript(script('201').replace('ack 101 win', 'ack 1 win')), { kind: 'failed' })
  t.end()
})

t.test('calls block until what they wait for comes, and not a moment longer', t => {
  const script = (end: string): string => `${established}
+0...${end} read(4, ..., 1000) = 10
+0.2 < P. 1:11(10) ack 1 win 65535
+0 > . 1:1(0) ack 11
`
  t.equal(runScript(script('0.2')).kind, 'passed')
  t.match(runScript(script('0.3')), { kind: 'failed', why: /returned at 200/ })
  t.match(runScript(`${established}+0...0.2 read(4, ..., 10) = 10`), {
    kind: 'failed',
    why: /still blocks/,
  })
  t.equal(
    runScript(`${open}+0...0.1 accept(3, ..., ...) = 4
+.1 < S 0:0(0) win 65535 <mss 1000>
+0 > S. 0:0(0) ack 1
+0 < . 1:1(0) ack 1 win 65535`).kind,
    'passed',
  )
  t.end()
})

t.test('assertions on tcp_info, with what they found', t => {
  const code = (assertion: string): string => `${established}+0 %{
assert ${assertion}
}%`
  const holds = [
    'tcpi_state == TCP_ESTABLISHED, tcpi_state',
    'tcpi_snd_mss == 1000 and tcpi_snd_cwnd == 10',
    'tcpi_options & TCPI_OPT_SACK',
    'not (tcpi_unacked > 0) and 1 <= tcpi_snd_cwnd < 3 * 4',
    'abs(tcpi_rtt - 1000) <= 1000',
  ]
  for (const assertion of holds) t.equal(runScript(code(assertion)).kind, 'passed', assertion)
  t.match(runScript(code('tcpi_snd_cwnd == 11')), { kind: 'failed', why: /tcpi_snd_cwnd = 10/ })
  t.match(runScript(code('tcpi_nonsense == 1')), { kind: 'notDrivable', why: /tcpi_nonsense/ })
  t.match(runScript(code('tcpi_state ** 2')), { kind: 'notDrivable' })
  t.end()
})

t.test('a read that leaves more room than was told may ask for an update, or not', t => {
  const script = (next: string): string => `${established}
+0 < . 1:10001(10000) ack 1 win 65535
* > . 1:1(0) ack 10001
+0 read(4, ..., 10000) = 10000
${next}`
  t.equal(runScript(script('+0 > . 1:1(0) ack 10001\n')).kind, 'passed')
  t.equal(runScript(script('+.1 write(4, ..., 9) = 9\n+0 > P. 1:10(9) ack 10001\n')).kind, 'passed')
  t.equal(runScript(script('+0 > . 1:1(0) ack 10002\n')).kind, 'failed')
  t.end()
})

t.test('events and octets that a script counts otherwise are a failure', t => {
  const epoll = (events: string, again: number): string => `${established}
+0 epoll_create(1) = 5
+0 epoll_ctl(5, EPOLL_CTL_ADD, 4, {events=EPOLLOUT|${events}, fd=4}) = 0
+0 epoll_wait(5, {events=EPOLLOUT, fd=4}, 1, 0) = 1
+0 epoll_wait(5, {events=EPOLLOUT, fd=4}, 1, 0) = ${again}
`
  for (const events of ['EPOLLET', 'EPOLLONESHOT']) {
    t.equal(runScript(epoll(events, 0)).kind, 'passed', events)
    t.equal(runScript(epoll(events, 1)).kind, 'failed', events)
  }
  t.equal(runScript(epoll('EPOLLIN', 1)).kind, 'passed')
  const inq = (left: number): string => `${established}
+0 < P. 1:11(10) ack 1 win 65535
+0 recvmsg(4, {msg_iov(1)=[{..., 4}], msg_control=[{cmsg_level=SOL_TCP, cmsg_type=TCP_CM_INQ, cmsg_data=${left}}]}, 0) = 4
`
  t.equal(runScript(inq(6)).kind, 'passed')
  t.match(runScript(inq(7)), { kind: 'failed', why: /TCP_CM_INQ of 6/ })
  t.end()
})

t.test('poll and epoll tell what is ready', t => {
  const poll = (revents: string, count: number): string =>
    `+0 poll([{fd=4, events=POLLIN|POLLOUT, revents=${revents}}], 1, 0) = ${count}\n`
  t.equal(runScript(`${established}${poll('POLLOUT', 1)}`).kind, 'passed')
  t.equal(runScript(`${established}${poll('POLLIN', 1)}`).kind, 'failed')
  const received = `${established}+0 < P. 1:11(10) ack 1 win 65535\n`
  t.equal(runScript(`${received}${poll('POLLIN|POLLOUT', 1)}`).kind, 'passed')
  const epoll = `+0 epoll_create(1) = 5
+0 epoll_ctl(5, EPOLL_CTL_ADD, 4, {events=EPOLLIN, fd=4}) = 0
+0 epoll_wait(5, {events=EPOLLIN, fd=4}, 1, 0) = 1
`
  t.equal(runScript(`${received}${epoll}`).kind, 'passed')
  t.equal(runScript(`${established}${epoll}`).kind, 'failed')
  t.end()
})

t.test('IPv6, and ICMP errors about a segment that is under way, and about none', t => {
  const script = (seq: string): string => `--ip_version=ipv6
0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
+0 fcntl(3, F_SETFL, O_RDWR|O_NONBLOCK) = 0
+0 connect(3, ..., ...) = -1 EINPROGRESS (Operation now in progress)
+0 > S 0:0(0) <mss 1440,sackOK,TS val 100 ecr 0,nop,wscale 8>
+.1 < icmp unreachable port_unreachable [${seq}:${seq}(0)]
+0 getsockopt(3, SOL_SOCKET, SO_ERROR, [ECONNREFUSED], [4]) = 0
`
  t.equal(runScript(script('0')).kind, 'passed')
  t.match(runScript(script('1')), { kind: 'failed', line: 7 })
  t.end()
})

t.test('settings of a script that are ours', t => {
  const script = (name: string): string => `--tolerance_usecs=200000
\`sysctl -q net.ipv4.tcp_congestion_control=${name}
sysctl -q net.ipv4.tcp_syn_retries=1\`
0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
+0...3.1 connect(3, ..., ...) = -1 ETIMEDOUT (Connection timed out)
+0 > S 0:0(0) <...>
+1~+1.1 > S 0:0(0) <...>
`
  t.equal(runScript(script('reno')).kind, 'passed')
  t.match(runScript(script('vegas')), { kind: 'notDrivable', why: /vegas/ })
  t.end()
})

t.test('names that a script gives, and those of a kernel, of which nothing is compared', t => {
  const code = (text: string): string => `${established}+0 %{ ${text} }%\n`
  t.equal(runScript(code('cwnd = 9; cwnd += 1; assert tcpi_snd_cwnd == cwnd')).kind, 'passed')
  t.match(runScript(code('cwnd = 9; assert tcpi_snd_cwnd == cwnd')), { kind: 'failed' })
  t.strictSame(runScript(code('assert tcpi_reordering == 7; assert tcpi_snd_cwnd == 10')), {
    kind: 'passed',
    unchecked: ['tcpi_reordering'],
  })
  t.match(runScript(code('assert tcpi_reordering == 7; assert tcpi_snd_cwnd == 9')), {
    kind: 'failed',
  })
  t.match(totals([{ kind: 'passed' }, { kind: 'passed', unchecked: ['a'] }]), /1 of them without/)
  t.end()
})

t.test('a segment that was lost and has been sent again counts as lost until it arrives', t => {
  const script = (lost: number): string => `${distant}
+0 write(4, ..., 5000) = 5000
+0 > . 1:5001(5000) ack 1
+.04 < . 1:1(0) ack 1 win 65535 <nop,nop,sack 1001:4001>
+0 > . 1:1001(1000) ack 1
+0 %{ assert tcpi_lost == ${lost} and tcpi_retrans == ${lost} }%
`
  t.equal(runScript(script(1)).kind, 'passed')
  t.equal(runScript(script(0)).kind, 'failed')
  t.end()
})

t.test('what a route says of its path', t => {
  const script = (route: string): string => `\`ip route change 192.0.2.2 dev tun0 ${route}\`
${open}
+0 < S 0:0(0) win 65535 <mss 1460>
+0 > S. 0:0(0) ack 1
+0 < . 1:1(0) ack 1 win 65535
+0 accept(3, ..., ...) = 4
+0 write(4, ..., 2000) = 2000
+0 > . 1:1361(1360) ack 1
+0 > P. 1361:2001(640) ack 1
`
  t.equal(runScript(script('advmss 1360 mtu lock 1400')).kind, 'passed')
  t.equal(runScript(script('mtu lock 1300')).kind, 'failed')
  t.match(runScript(script('advmss 1000 mtu 1400')), { kind: 'notDrivable', why: /MSS/ })
  t.end()
})

t.test('commands of several lines, and those far behind that ask for another TCP', t => {
  const script = (setting: string): string => `\`../common/set_sysctls.py \\
  /proc/sys/net/ipv4/tcp_rto_max_ms=1000\`
${open}
+0 < S 0:0(0) win 65535 <mss 1000>
+0 > S. 0:0(0) ack 1
+1 > S. 0:0(0) ack 1
+1 > S. 0:0(0) ack 1
+0 < . 1:1(0) ack 1 win 65535
+0 accept(3, ..., ...) = 5
+1 \`${setting}; /bin/rm -f /tmp/file\`
`
  t.equal(runScript(script('nstat -n')).kind, 'passed')
  t.match(runScript(script('tc qdisc replace dev tun0 root pfifo limit 0')), {
    kind: 'notDrivable',
    why: /queue of the host/,
  })
  t.end()
})

t.test('ICMP messages with the segment before them, with none, and of any type', t => {
  const script = (message: string): string => `${established}
+0 write(4, ..., 1000) = 1000
+0 > P. 1:1001(1000) ack 1
+.01 < ${message}
+0 > . 1:801(800) ack 1
+0 > P. 801:1001(200) ack 1
`
  t.equal(runScript(script('[1:1001(1000)] icmp unreachable frag_needed mtu 840')).kind, 'passed')
  const others = [
    'icmp unreachable frag_needed mtu 840',
    'icmp unreachable code_255',
    'icmp type_255 code_0',
    'icmp echo_reply',
  ]
  for (const message of others) t.match(runScript(script(message)), { kind: 'failed' }, message)
  t.match(runScript(script('icmp nonsense')), { kind: 'notDrivable' })
  t.end()
})

t.test('a FIN is acknowledged at once or when the script says, and at no other time', t => {
  const script = (at: string): string => `${established}
+0 < P. 1:1001(1000) ack 1 win 65535
+0 > . 1:1(0) ack 1001
+0 < F. 1001:1001(0) ack 1 win 65535
+${at} > . 1:1(0) ack 1002
`
  t.equal(runScript(script('0')).kind, 'passed')
  t.equal(runScript(script('.04')).kind, 'passed')
  t.match(runScript(script('.04').replace('F. 1001:1001(0)', 'P. 1001:1002(1)')), {
    kind: 'failed',
  })
  t.end()
})

t.test(
  'a write that a queue as long as it was asked for takes whole, and one that depends on a kernel',
  t => {
    const script = (length: number, taken: number): string => `${established}
+0 setsockopt(4, SOL_SOCKET, SO_SNDBUF, [400000], 4) = 0
+0 write(4, ..., ${length}) = ${taken}
`
    const answers = Array.from(
      { length: 50 },
      (_, i) => `+.02 < . 1:1(0) ack ${1 + 12000 * (i + 1)} win 65535`,
    )
    t.equal(runScript(`${script(600000, 600000)}${answers.join('\n')}`).kind, 'passed')
    t.match(runScript(script(900000, 900000)), { kind: 'failed' })
    t.match(runScript(script(600000, 500000)), { kind: 'notDrivable', why: /send buffer/ })
    t.end()
  },
)

t.test(
  'each listener is met from another port, as if the connections before were none of its',
  t => {
    const again = established.replace('0.00 socket', '+0.00 socket')
    const rest = `+0 < P. 1:1001(1000) ack 1 win 65535
+0 > . 1:1(0) ack 1001
+0 close(4) = 0
+0 close(3) = 0
`
    t.equal(runScript(`${established}${rest}${again}`).kind, 'passed')
    t.end()
  },
)

t.test('a difference is explained by what leads to it', t => {
  const sent = `${distant}+0 write(4, ..., 10000) = 10000
+0 > . 1:10001(10000) ack 1
`
  const explained: readonly [string, RegExp][] = [
    ['+0 < . 1:1(0) ack 9 win 9\n+0 write(4, ..., 9) = 9\n+0 > P. 1:10(9) ack 1', /never sent/],
    [
      '+0 < P. 1:1001(1000) ack 1 win 9\n+0 > . 1:1(0) ack 1001\n+0 < P. 1:1001(1000) ack 1 win 9\n+0 > . 1:1(0) ack 1001 <>',
      /RFC 2883/,
    ],
    ['+0 < P. 1:20001(20000) ack 1 win 9\n+.04 > . 1:1(0) ack 20001', /two full segments/],
  ]
  for (const [script, why] of explained)
    t.match(runScript(`${established}${script}\n`), { kind: 'deviates', why }, script)
  // The same difference with another cause is none of these.
  t.match(runScript(`${established}+0 < P. 1:11(10) ack 1 win 9\n+.08 > . 1:1(0) ack 11\n`), {
    kind: 'failed',
  })
  t.match(runScript(`${sent}+.04 < . 1:1(0) ack 1 win 999\n+.2 > . 9001:10001(1000) ack 1\n`), {
    kind: 'deviates',
    why: /tail loss probe/,
  })
  t.end()
})
