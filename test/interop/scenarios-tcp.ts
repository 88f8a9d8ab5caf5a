/** Our TCP with Linux', without IKE and ESP: each in a network namespace of its own, on a TUN device. */
import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { CONVERSATIONS, DEVICE } from './kernel-tcp.ts'
import { NotRun } from './rig.ts'
import type { Scenario } from './scenario.ts'

/** Opens the TUN device as file 3, which Node cannot (TUNSETIFF: IFF_TUN and IFF_NO_PI), and becomes the program. */
const OPEN_TUN = `
use POSIX (); $^F = 255;
open(my $tun, "+<", "/dev/net/tun") or die "no /dev/net/tun: $!";
ioctl($tun, 0x400454ca, pack("a16 S x22", shift @ARGV, 0x1001)) or die "no TUN device: $!";
POSIX::dup2(fileno($tun), 3);
exec @ARGV or die $!;
`
const PROGRAM = fileURLToPath(new URL('./kernel-tcp.js', import.meta.url))

const converse = async (name: string, role: Scenario['role']): Promise<void> => {
  if (!existsSync('/usr/bin/perl')) throw new NotRun('perl is missing, which opens TUN devices')
  const command = ['perl', '-e', OPEN_TUN, DEVICE, process.execPath, PROGRAM, name, role]
  const child = spawn('unshare', ['--net', ...command], { stdio: ['ignore', 'pipe', 'pipe'] })
  let output = ''
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (octets: Buffer) => (output += String(octets)))
  const status = await new Promise(resolve => child.on('close', resolve))
  if (status !== 0) throw new Error(output)
}

export const scenarios: readonly Scenario[] = [...CONVERSATIONS.keys()].flatMap(name =>
  (['initiator', 'responder'] as const).map(role => ({
    name: `TCP alone: ${name}`,
    role,
    peer: 'Linux TCP',
    seconds: 60,
    run: () => converse(name, role),
  })),
)
