/** Runs `ike-socket` as a process of its own. */
import { spawn, type ChildProcessWithoutNullStreams } from 'node:child_process'
import { packageFile } from './package.ts'

export interface Outcome {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

/** Ends with the process, or with the test; `whenRunning` gets the process. */
export const runCommand = (
  args: readonly string[],
  environment: Readonly<Record<string, string>> = {},
  whenRunning: (child: ChildProcessWithoutNullStreams) => void = () => {},
): Promise<Outcome> =>
  new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [packageFile('cli/main'), ...args], {
      env: { ...process.env, IKE_SOCKET_CONFIG: '', IKE_SOCKET_CONTROL: '', ...environment },
    })
    const kill = (): void => void child.kill('SIGKILL')
    process.once('exit', kill)
    let stdout = ''
    let stderr = ''
    child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text))
    child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text))
    child.once('error', reject)
    child.once('close', code => {
      process.removeListener('exit', kill)
      resolve({ code, stdout, stderr })
    })
    whenRunning(child)
  })
