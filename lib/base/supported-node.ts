/** Which versions of Node the package runs on, those of `engines` in package.json, and which can do what. */

const OLDEST = { major: 20, minor: 19 }

/** Why it does not run on that version, as `process.versions.node` has it; undefined: it does. */
export const nodeProblem = (version: string): string | undefined => {
  const { major, minor } = partsOf(version)
  const isOld = major < OLDEST.major || (major === OLDEST.major && minor < OLDEST.minor)
  return isOld
    ? `ike-socket needs Node ${OLDEST.major}.${OLDEST.minor} or newer, and this is Node ${version}. Update Node, or run the program with another one (node --version says which it is).`
    : undefined
}

/** Where several sockets can bind one UDP port so that the system spreads what comes (SO_REUSEPORT of Linux, and its like). */
const SPREADING: ReadonlySet<string> = new Set(['aix', 'freebsd', 'linux', 'sunos'])

/** Why `reusePort` is not there, as `nodeProblem`; undefined: it is. `platform`: as `process.platform` has it. */
export const reusePortProblem = (version: string, platform: string): string | undefined => {
  const { major, minor } = partsOf(version)
  const hasIt = major > 23 || (major === 23 && minor >= 1) || (major === 22 && minor >= 12)
  if (!hasIt) return `on Node 22.12, 23.1 or newer, and this is Node ${version}`
  return SPREADING.has(platform) ? undefined : `on Linux, FreeBSD, AIX and Solaris, not ${platform}`
}

/** Whose structures of the C library are laid out as `accelerate` writes them. */
const LAID_OUT: ReadonlySet<string> = new Set(['arm64', 'x64'])

/** Why `accelerate` is not there, as `reusePortProblem`. `arch`: as `process.arch` has it. */
export const ffiProblemOf = (
  version: string,
  platform: string,
  arch: string,
): string | undefined => {
  if (partsOf(version).major < 26) return `on Node 26 or newer, and this is Node ${version}`
  if (platform !== 'linux') return `on Linux, not ${platform}`
  return LAID_OUT.has(arch) ? undefined : `on x64 and arm64, not ${arch}`
}

const partsOf = (version: string): { major: number; minor: number } => {
  const [major = 0, minor = 0] = version.split('.').map(Number)
  return { major, minor }
}
