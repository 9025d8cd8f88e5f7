// Makes guest.wasm of guest.js: `npm run build`.

import { writeFile } from 'node:fs/promises';
import { componentize } from '@bytecodealliance/componentize-js';

const { component } = await componentize({
  sourcePath: 'guest.js',
  witPath: 'wit',
  worldName: 'media-guest',
  // The host gives a guest its store and its settings, and nothing else: no console, clock, chance or network. Time and
  // chance are part of each request.
  disableFeatures: ['stdio', 'random', 'clocks', 'http', 'fetch-event'],
});
await writeFile('guest.wasm', component);
console.log(`guest.wasm: ${(component.length / 2 ** 20).toFixed(1)} MiB`);
