/** `ike-socket/net` for blocks of the documentation. */
import net, { configure as realConfigure, type Configuration } from '../../lib/net.ts'
import { world } from './world.ts'

export * from '../../lib/net.ts'

export const configure = (options: Configuration): void =>
  realConfigure({ ...options, ikePort: world?.own })

export default { ...net, configure }
