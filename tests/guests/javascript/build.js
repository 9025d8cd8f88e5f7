// Makes the guest of this folder, `npm run build FILE`. It has some 12 MB, so it is not committed.

import { writeFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { componentize } from '@bytecodealliance/componentize-js';

const file = resolve(process.argv[2] ?? 'misbehaving.wasm');
// A guest's modules are looked for beneath the working directory only, and this one uses the starter's.
process.chdir(fileURLToPath(new URL('../../..', import.meta.url)));
const { component } = await componentize({
  sourcePath: 'tests/guests/javascript/misbehaving.js',
  witPath: 'wit',
  worldName: 'media-guest',
  // As the starter's own build has it.
  disableFeatures: ['stdio', 'random', 'clocks', 'http', 'fetch-event'],
});
await writeFile(file, component);
console.log(`${file}: ${(component.length / 2 ** 20).toFixed(1)} MiB`);
