/** What the linter looks for: faults of meaning that the compiler lets pass, in everything we run. Looks are prettier's. */
import { defineConfig, globalIgnores } from 'eslint/config'
import tseslint from 'typescript-eslint'
import noTextLookup from './test/lint/no-text-lookup.js'

/** For JavaScript too, which says little of types. */
const PROMISES = {
  '@typescript-eslint/await-thenable': 'error',
  '@typescript-eslint/no-floating-promises': [
    'error',
    // tap itself waits for a test that was begun.
    {
      allowForKnownSafePromises: [
        { from: 'package', package: '@tapjs/core', name: 'PromiseWithSubtest' },
      ],
    },
  ],
  '@typescript-eslint/no-misused-promises': 'error',
  '@typescript-eslint/prefer-promise-reject-errors': 'error',
}

const TYPES = {
  '@typescript-eslint/no-explicit-any': 'error',
  '@typescript-eslint/no-unnecessary-type-assertion': 'error',
  '@typescript-eslint/no-unsafe-argument': 'error',
  '@typescript-eslint/no-unsafe-assignment': 'error',
  '@typescript-eslint/no-unsafe-call': 'error',
  '@typescript-eslint/no-unsafe-member-access': 'error',
  '@typescript-eslint/no-unsafe-return': 'error',
  // A default is an answer for the cases that are not named.
  '@typescript-eslint/switch-exhaustiveness-check': [
    'error',
    { considerDefaultExhaustiveForUnions: true },
  ],
}

export default defineConfig([
  globalIgnores(['dist/', '.build/', '.tap/', 'test/types/consumer/', 'test/types/newest/']),
  { linterOptions: { reportUnusedDisableDirectives: 'error' } },
  {
    files: ['**/*.ts', '**/*.js', '**/*.mjs'],
    languageOptions: {
      parser: tseslint.parser,
      parserOptions: { project: 'test/lint/tsconfig.json', tsconfigRootDir: import.meta.dirname },
    },
    plugins: {
      '@typescript-eslint': tseslint.plugin,
      'ike-socket': { rules: { 'no-text-lookup': noTextLookup } },
    },
    rules: PROMISES,
  },
  { files: ['**/*.ts'], rules: TYPES },
  // A promise that fails in the listener of a small program ends it, as it should.
  {
    files: ['**/*.mjs'],
    rules: { '@typescript-eslint/no-misused-promises': ['error', { checksVoidReturn: false }] },
  },
  // What a test looks up, it has written itself.
  { files: ['lib/**/*.ts'], rules: { 'ike-socket/no-text-lookup': 'error' } },
])
