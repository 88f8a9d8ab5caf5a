/** Our own packetdrill scripts, those of another stack where they are at hand, and the runner itself. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { runFolder, runScript, totals } from './packetdrill.ts'

t.test('our own scripts pass, each of them', t => {
  const verdicts = runFolder(join(process.cwd(), 'test/conformance/scripts'))
  t.ok(verdicts.size >= 43)
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
