// Makes the guests of this folder, and the starter as it is, into `built/`: `npm run build`. They have some 12 MB each,
// so they are not committed.

import { mkdir, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { componentize } from '@bytecodealliance/componentize-js';

const HERE = 'tests/guests/javascript';
const SOURCES = {
  starter: 'host/starters/javascript/guest.js',
  'endless-loop': `${HERE}/endless-loop.js`,
  'memory-hog': `${HERE}/memory-hog.js`,
};

// A guest's modules are looked for beneath the working directory only, and two of these use the starter's.
process.chdir(fileURLToPath(new URL('../../..', import.meta.url)));
await mkdir(`${HERE}/built`, { recursive: true });
for (const [name, sourcePath] of Object.entries(SOURCES)) {
  const { component } = await componentize({
    sourcePath,
    witPath: 'wit',
    worldName: 'media-guest',
    // As the starter's own build has it.
    disableFeatures: ['stdio', 'random', 'clocks', 'http', 'fetch-event'],
  });
  await writeFile(`${HERE}/built/${name}.wasm`, component);
  console.log(`built/${name}.wasm: ${(component.length / 2 ** 20).toFixed(1)} MiB`);
}
