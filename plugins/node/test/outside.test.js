// Nothing outside the folder is reached, and nothing hidden in it.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { Accounts } from '../src/accounts.js';
import { Folder, StoreError } from '../src/folder.js';
import { ask, folderOf, hostOf, write } from './support.js';

/** @param {import('node:test').TestContext} t */
function shelf(t) {
  const root = folderOf(t);
  const media = join(root, 'media');
  write(root, 'secret.txt', 'secret');
  write(media, 'a.gif', 'GIF89a');
  write(media, '.env', 'secret');
  write(media, 'b/c.txt', 'c');
  const accounts = new Accounts();
  const folder = new Folder(media, accounts);
  const opens = (/** @type {string} */ name) => {
    try {
      folder.open({ tag: 'named', val: name })[Symbol.dispose]();
      return true;
    } catch (error) {
      assert.ok(error instanceof StoreError && error.payload.tag === 'not-found', String(error));
      return false;
    }
  };
  return { root, media, opens, accounts };
}

test('no name leads outside, or to what is hidden', async (t) => {
  const { opens, accounts } = shelf(t);
  assert.ok(opens('a.gif') && opens('b/c.txt'));
  for (const name of [
    '../secret.txt',
    'b/../../secret.txt',
    '/etc/passwd',
    'b/../a.gif',
    './a.gif',
    'b//c.txt',
    'b\\c.txt',
    'a.gif/',
    'a.gif/x',
    'b',
    '',
    '.',
    '..',
    '.env',
    'a.gif\0',
    'a'.repeat(5000),
  ]) {
    assert.ok(!opens(name), name.slice(0, 40));
  }
  await accounts.idle();
});

test('titles with the marks of other systems, and with dots before them, are names', async (t) => {
  const { media, opens, accounts } = shelf(t);
  const titles = ['A: B.mkv', 'a\\b', 'a\n\u0085b', '...And Justice for All.mp3', '..a', '.well-known/x.txt'];
  for (const name of titles) {
    write(media, name, 'x');
    assert.ok(opens(name), name);
  }
  for (const name of ['._a', '.git/config', '.well-known/.git', '.well-known.txt']) {
    write(media, name, 'x');
    assert.ok(!opens(name), name);
  }
  await accounts.idle();
});

test('a link is followed within the folder only', async (t) => {
  const { root, media, opens, accounts } = shelf(t);
  for (const [target, name] of [
    ['a.gif', 'inside.gif'],
    ['b', 'folder'],
    ['../a.gif', 'b/back.gif'],
    ['../secret.txt', 'relative'],
    [join(root, 'secret.txt'), 'absolute'],
    [join(media, 'a.gif'), 'absolute-inside'],
    ['..', 'up'],
    ['b/../../media/a.gif', 'out-and-in'],
    ['loop', 'loop'],
    ['none', 'dangling'],
  ]) {
    symlinkSync(target, join(media, name));
  }
  for (const name of ['inside.gif', 'folder/c.txt', 'b/back.gif']) assert.ok(opens(name), name);
  for (const name of [
    'relative',
    'absolute',
    'absolute-inside',
    'up/secret.txt',
    'out-and-in',
    'loop',
    'dangling',
  ]) {
    assert.ok(!opens(name), name);
  }
  await accounts.idle();
});

test('a named pipe is no object and does not hang', (t) => {
  const { media, opens } = shelf(t);
  execFileSync('mkfifo', [join(media, 'pipe')]);
  assert.ok(!opens('pipe'));
});

test('traversal over a socket, however it is spelt', async (t) => {
  const { root, port } = await hostOf(t);
  mkdirSync(join(root, 'b'));
  for (const target of [
    '/media/../../../etc/passwd',
    '/media/%2e%2e/%2e%2e/etc/passwd',
    '/media/..%2f..%2fetc%2fpasswd',
    '/media/..%5c..%5cetc%5cpasswd',
    '/media//etc/passwd',
    '/media?id=../../../etc/passwd',
    '/api/media/../../etc/passwd',
  ]) {
    assert.equal((await ask(port, target)).status, 404, target);
  }
});
