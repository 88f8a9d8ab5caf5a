/** In the place of @types/node, where a compilation looks for it: the newest one. */
/// <reference path="../../../../node_modules/types-node-newest/index.d.ts" />
