import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { ask, folderOf, write } from './support.js';

const COMMAND = fileURLToPath(new URL('../bin/millpond-node.js', import.meta.url));

test('it serves, tells its figures, and ends when told', async (t) => {
  const root = folderOf(t);
  write(root, 'a.txt', 'a');
  const options = ['--listen', '127.0.0.1:0', '--files-at', '/', '--setting', 'cache-files=no-store'];
  const command = spawn(process.execPath, [COMMAND, root, ...options], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.after(() => command.kill('SIGKILL'));
  const lines = createInterface({ input: command.stdout })[Symbol.asyncIterator]();
  const { value: first } = await lines.next();
  const port = Number(/^listening on http:\/\/127\.0\.0\.1:(\d+)$/.exec(first)?.[1]);

  const { status, fields, body } = await ask(port, '/a.txt');
  assert.deepEqual([status, String(body), fields.get('cache-control')], [200, 'a', 'no-store']);
  const expectant = await ask(port, '/a.txt', { fields: { expect: '100-continue', 'content-length': '5' } });
  assert.deepEqual([expectant.status, expectant.fields.get('connection')], [200, 'close']);
  assert.equal((await ask(port, '/a.txt', { fields: { expect: 'more' } })).status, 417);
  assert.equal((await ask(port, '/a.txt', { method: 'FOO' })).status, 501);
  assert.equal((await ask(port, '/a.txt', { fields: { x: 'a'.repeat(40_000) } })).status, 431);
  assert.equal((await ask(port, '/a.txt', { fields: { 'content-length': 'x' } })).status, 400);

  command.kill('SIGUSR2');
  const { value: figures } = await lines.next();
  const { completed, refused, openFiles } = JSON.parse(figures);
  assert.deepEqual({ completed, refused, openFiles }, { completed: 2, refused: 1, openFiles: 0 });

  command.kill('SIGTERM');
  assert.deepEqual(await once(command, 'exit'), [0, null]);
});

test('what it cannot begin with is told in one line', () => {
  for (const args of [
    ['/nowhere/at/all'],
    ['.', '--listen', 'x'],
    ['.', '--setting', 'colour=blue'],
    ['.', '--files-at', 'x'],
    ['.', '--colour'],
  ]) {
    const { status, stderr, stdout } = spawnSync(process.execPath, [COMMAND, ...args], { encoding: 'utf8' });
    assert.deepEqual([status, stdout], [2, ''], args.join(' '));
    assert.match(stderr, /^millpond-node: .+\n$/, args.join(' '));
  }
});
