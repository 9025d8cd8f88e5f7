// Makes `dist/` of the component: `npm run build`. JavaScript around the component's own core modules, in a form that
// makes an instance at each call (`jco transpile --instantiation sync`).

import { readFile, rm } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { transpile, writeFiles } from '@bytecodealliance/jco-transpile';

const component =
  process.argv[2] ??
  fileURLToPath(new URL('../../host/millpond/component/media-serve.wasm', import.meta.url));
const outDir = process.argv[3] ?? fileURLToPath(new URL('dist', import.meta.url));

const { files } = await transpile(component, {
  outDir,
  name: 'guest',
  instantiation: 'sync',
  nodejsCompat: false,
});
const [glueName] = Object.keys(files).filter((name) => name.endsWith('/guest.js'));
files[glueName] = Buffer.from(withoutDebugging(Buffer.from(files[glueName]).toString()));
await rm(outDir, { recursive: true, force: true });
await writeFiles(files);
console.log(
  `${outDir}: ${Object.keys(files).length} files of ${(await readFile(component)).length} bytes of component`,
);

/**
 * jco's glue asks the environment some fifty times a call whether it is to be debugged, which is half of what a call
 * takes. Here it is not.
 * @param {string} glue
 */
function withoutDebugging(glue) {
  const asks = 'if (!globalThis?.process?.env?.JCO_DEBUG) { return; }';
  if (glue.split(asks).length !== 2)
    throw new Error('the glue of this version of jco looks otherwise: see build.js');
  return glue.replace(asks, 'return;');
}
