/** Every command, in the order in which `--help` lists them. */
import { captureCommand } from './capture.ts'
import type { Command } from './command.ts'
import { completionCommand } from './completion.ts'
import { doctorCommand } from './doctor.ts'
import { keygenCommand } from './keygen.ts'
import { keyCommands } from './keys.ts'
import { peerConfigCommand } from './peer-config.ts'
import { pingCommand } from './ping.ts'
import { sidecarCommands } from './sidecar.ts'
import { statusCommand } from './status.ts'

const commands: readonly Command[] = [
  doctorCommand,
  statusCommand,
  pingCommand,
  captureCommand,
  keygenCommand,
  ...keyCommands,
  peerConfigCommand,
  ...sidecarCommands,
]

export const COMMANDS: readonly Command[] = [...commands, completionCommand(commands)]
