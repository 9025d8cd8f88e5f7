import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { connect } from 'node:net';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { ask, folderOf, headOf, noise, write } from './support.js';

const COMMAND = fileURLToPath(new URL('../bin/millpond-node.js', import.meta.url));

test('it serves, tells its figures, and ends when told', async (t) => {
  const root = folderOf(t);
  write(root, 'a.txt', 'a');
  const options = ['--listen', '127.0.0.1:0', '--mount-path', '/', '--setting', 'cache-files=no-store'];
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

  // Neither ends it, nor does it listen for a debugger.
  command.kill('SIGHUP');
  command.kill('SIGUSR1');
  command.kill('SIGUSR2');
  const { value: figures } = await lines.next();
  const { completed, rejected, openFiles } = JSON.parse(figures);
  assert.deepEqual({ completed, rejected, openFiles }, { completed: 2, rejected: 1, openFiles: 0 });

  command.kill('SIGTERM');
  assert.deepEqual(await once(command, 'exit'), [0, null]);
});

test('a second signal ends it at once', async (t) => {
  const root = folderOf(t);
  write(root, 'large.bin', noise(64 * 1024 * 1024));
  const command = spawn(process.execPath, [COMMAND, root, '--listen', '127.0.0.1:0', '--mount-path', '/'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.after(() => command.kill('SIGKILL'));
  const lines = createInterface({ input: command.stdout })[Symbol.asyncIterator]();
  const { value: first } = await lines.next();
  const reader = connect(Number(/:(\d+)$/.exec(first)?.[1]), '127.0.0.1');
  reader.on('error', () => {});
  reader.write(headOf('/large.bin'));
  await once(reader, 'readable');

  command.kill('SIGTERM');
  // It has closed its listener once nobody can connect any more.
  while (await canConnect(reader.remotePort)) await setImmediate();
  command.kill('SIGINT');
  assert.deepEqual(await once(command, 'exit'), [1, null]);
});

/** @param {number | undefined} port */
async function canConnect(port = 0) {
  const socket = connect(port, '127.0.0.1');
  try {
    await once(socket, 'connect');
    return true;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}

test('what it cannot begin with is told in one line', () => {
  for (const args of [
    ['/nowhere/at/all'],
    ['.', '--listen', 'x'],
    ['.', '--setting', 'colour=blue'],
    ['.', '--mount-path', 'x'],
    ['.', '--colour'],
  ]) {
    const { status, stderr, stdout } = spawnSync(process.execPath, [COMMAND, ...args], { encoding: 'utf8' });
    assert.deepEqual([status, stdout], [2, ''], args.join(' '));
    assert.match(stderr, /^millpond-node: .+\n$/, args.join(' '));
  }
});
