/** The file with the options of a command: that of `--config`, else that of IKE_SOCKET_CONFIG. */
import { loadConfiguration } from '../api/configuration.ts'
import { UsageError } from './usage.ts'

export class ConfigurationFile {
  readonly path: string
  /** What the user has named it by, which a fault in it is told with. */
  private readonly named: string

  constructor(path: string, named: string) {
    this.path = path
    this.named = named
  }

  /** A faulty one throws, and changes nothing. */
  load(): void {
    loadConfiguration(this.path, this.named)
  }
}

/** `config`: the value of `--config`. Undefined: the user has named no file. */
export const findConfiguration = (config: string | undefined): ConfigurationFile | undefined => {
  const path = config ?? process.env['IKE_SOCKET_CONFIG']
  if (path === undefined || path === '') return undefined
  return new ConfigurationFile(path, config === undefined ? 'IKE_SOCKET_CONFIG' : '--config')
}

export const requireConfiguration = (config: string | undefined): ConfigurationFile => {
  const file = findConfiguration(config)
  if (file === undefined) throw new UsageError('--config or IKE_SOCKET_CONFIG is missing')
  return file
}
