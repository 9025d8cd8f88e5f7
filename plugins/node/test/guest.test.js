// What a guest that misbehaves comes to: `tests/guests/hostile.wasm`, whose deeds have their names.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { CALLS_PER_INSTANCE } from '../src/limits.js';
import { Guest } from '../src/guest.js';
import { logged } from '../src/head.js';
import { middlewareOf } from '../src/middleware.js';
import { ask, assertIdle, folderOf, hostOf, listen, openDescriptors, write } from './support.js';

const REPOSITORY = new URL('../../../', import.meta.url);

/** @param {import('node:test').TestContext} t */
async function hostileHost(t) {
  const built = folderOf(t);
  const build = fileURLToPath(new URL('../build.js', import.meta.url));
  execFileSync(process.execPath, [
    build,
    fileURLToPath(new URL('tests/guests/hostile.wasm', REPOSITORY)),
    built,
  ]);
  const { instantiate } = await import(pathToFileURL(join(built, 'guest.js')).href);
  const complete = (/** @type {any} */ module, /** @type {object} */ imports, /** @type {any} */ core) => {
    // It also reads media, which the embedded guest does not: nothing here is asked to.
    return instantiate(module, { ...imports, 'wasi:io/error': { Error: class {} } }, core);
  };
  const root = folderOf(t);
  write(root, 'small.txt', 'small');
  const middleware = middlewareOf(new Guest(complete, pathToFileURL(`${built}/`)), root, { log: () => {} });
  const port = await listen(t, (request, response) => middleware(request, response));
  return { port, middleware };
}

test('a guest that misbehaves harms nothing but its own answer', async (t) => {
  const { port, middleware } = await hostileHost(t);
  const before = openDescriptors();
  const failed = [500, '{"error":"Media component failed"}'];
  const limited = (/** @type {string} */ limit) => [500, `{"error":"Request limit reached: ${limit}"}`];
  for (const [deed, expected] of /** @type {[string, (number | string)[]][]} */ ([
    ['trap', failed],
    ['stack', failed],
    ['handle-hoarder', limited('handles')],
    ['stream-hoarder', limited('handles')],
    ['many-fields', limited('lifted bytes')],
    ['lying-part', failed],
    ['lying-length', failed],
    ['length-is-no-number', failed],
    ['connection-field', failed],
    ['broken-field-value', failed],
    ['broken-field-name', failed],
  ])) {
    const { status, body } = await ask(port, `/hostile/${deed}`);
    assert.deepEqual([status, String(body)], expected, deed);
    assert.equal(String((await ask(port, '/small.txt')).body), 'small', `after ${deed}`);
  }
  await assertIdle(middleware);
  const { completed, limited: stopped, failed: broken } = middleware.figures();
  assert.deepEqual({ completed, stopped, broken }, { completed: 11, stopped: 3, broken: 8 });
  assert.ok(openDescriptors() <= before + 1, 'no file is left open');
});

test('an instance is used again, and replaced in time', async (t) => {
  const { middleware } = await hostOf(t);
  const { Instances } = await import('../src/guest.js');
  const { Settings } = await import('../src/settings.js');
  const { instantiate } = await import('../dist/guest.js');
  let instances = 0;
  const guest = new Guest(
    (...args) => {
      instances += 1;
      return instantiate(...args);
    },
    new URL('../dist/', import.meta.url),
  );
  const nothing = /** @type {any} */ ({ open: () => assert.fail('nothing is asked for') });
  const all = new Instances(guest, nothing, new Settings({}));
  const question = { method: 'OPTIONS', pathWithQuery: '*', headers: [], received: 0n, random: 0n };
  const first = all.ask(question);
  for (let call = 1; call < CALLS_PER_INSTANCE + 1; call += 1) assert.deepEqual(all.ask(question), first);
  assert.equal(instances, 2);
  await assertIdle(middleware);
});

test('a signature that can be used is not logged', () => {
  for (const [url, expected] of [
    ['/a?exp=1&sig=c2Vj&download=b', '/a?exp=1&sig=[redacted]&download=b'],
    ['/a?sig=x&SIG=y=z', '/a?sig=[redacted]&SIG=[redacted]'],
    ['/a?X-Amz-Signature=x&access_token=y', '/a?X-Amz-Signature=[redacted]&access_token=[redacted]'],
    ['http://me:pw@a.example/b?sig=x', 'http://[redacted]@a.example/b?sig=[redacted]'],
    ['/a?sig=&sign=x&design=y', '/a?sig=&sign=x&design=y'],
    ['/sig=x/a@b', '/sig=x/a@b'],
  ]) {
    assert.equal(logged(url), expected);
  }
});
