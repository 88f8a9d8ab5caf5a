/** Which versions of Node the package runs on: those of `engines` in package.json. */

const OLDEST = { major: 20, minor: 19 }

/** Why it does not run on that version, as `process.versions.node` has it; undefined: it does. */
export const nodeProblem = (version: string): string | undefined => {
  const [major = 0, minor = 0] = version.split('.').map(Number)
  const isOld = major < OLDEST.major || (major === OLDEST.major && minor < OLDEST.minor)
  return isOld
    ? `ike-socket needs Node ${OLDEST.major}.${OLDEST.minor} or newer, and this is Node ${version}. Update Node, or run the program with another one (node --version says which it is).`
    : undefined
}
