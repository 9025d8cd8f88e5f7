// However an answer ends, what it held is given back.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { openSync, truncateSync } from 'node:fs';
import { connect } from 'node:net';
import { test } from 'node:test';
import { Accounts } from '../src/accounts.js';
import { PIECE_BYTES } from '../src/limits.js';
import { FileSlice, OpenFile } from '../src/open-file.js';
import { send } from '../src/sending.js';
import {
  ask,
  assertIdle,
  folderOf,
  headOf,
  hostOf,
  listen,
  noise,
  openDescriptors,
  write,
} from './support.js';

const LARGE_BYTES = 20 * 1024 * 1024;

/**
 * Reads until it has so many bytes, and then no further.
 * @param {import('node:net').Socket} socket
 * @param {number} count
 */
async function take(socket, count) {
  let taken = 0;
  while (taken < count) {
    const chunk = socket.read();
    if (chunk === null) await once(socket, 'readable');
    else taken += chunk.length;
  }
}

test('200 clients that go at any moment', async (t) => {
  const { root, port, middleware } = await hostOf(t);
  write(root, 'large.bin', noise(LARGE_BYTES));
  const before = openDescriptors();
  let seed = 1;
  const random = () => (seed = (seed * 48_271) % 2_147_483_647) / 2_147_483_647;
  const gone = Array.from({ length: 200 }, async (_, n) => {
    const socket = connect(port, '127.0.0.1');
    await once(socket, 'connect');
    socket.write(
      headOf('/media/large.bin', { fields: n % 3 === 0 ? { range: 'bytes=0-99999,-9999999' } : {} }),
    );
    // Some go before anything has come, the others somewhere within the first megabytes.
    if (n % 4 > 0) await take(socket, Math.floor(random() * 3_000_000));
    socket.destroy();
    await once(socket, 'close');
  });
  await Promise.all(gone);
  // Also those who went before their request was read are through by then.
  assert.equal((await ask(port, '/media/none')).status, 404);
  await assertIdle(middleware);
  const { completed, aborted, failed } = middleware.figures();
  assert.ok(aborted >= 150 && completed >= 1 && failed === 0, JSON.stringify(middleware.figures()));
  // The last answer's connection may still be there at the server's end.
  assert.ok(openDescriptors() <= before + 1, `${openDescriptors()} descriptors, and ${before} before`);
});

test('a client that goes with requests in line', async (t) => {
  const { root, port, middleware } = await hostOf(t);
  write(root, 'large.bin', noise(LARGE_BYTES));
  const socket = connect(port, '127.0.0.1');
  socket.write(Buffer.concat(Array.from({ length: 5 }, () => headOf('/media/large.bin'))));
  await take(socket, 100_000);
  socket.destroy();
  await assertIdle(middleware);
  assert.equal(middleware.figures().aborted, 5);
});

test('requests in line are answered one after another on one connection', async (t) => {
  const { root, port, middleware } = await hostOf(t);
  const bytes = noise(300_000);
  write(root, 'a.bin', bytes);
  const socket = connect(port, '127.0.0.1');
  const last = headOf('/media/a.bin', { fields: { connection: 'close' } });
  socket.write(Buffer.concat([headOf('/media/a.bin'), headOf('/media/none'), last]));
  const chunks = [];
  for await (const chunk of socket) chunks.push(chunk);
  const all = Buffer.concat(chunks);
  assert.equal(all.toString('latin1').match(/HTTP\/1\.1 200 OK/g)?.length, 2);
  assert.deepEqual(all.subarray(-bytes.length), bytes);
  await assertIdle(middleware);
  assert.equal(middleware.figures().completed, 3);
});

test('100 downloads at a time hold one piece each', async (t) => {
  const { root, port, middleware } = await hostOf(t);
  write(root, 'large.bin', noise(LARGE_BYTES));
  let most = 0;
  const clients = Array.from({ length: 100 }, async () => {
    const socket = connect(port, '127.0.0.1');
    socket.write(headOf('/media/large.bin', { fields: { connection: 'close' } }));
    let bytes = 0;
    for await (const chunk of socket) {
      bytes += chunk.length;
      most = Math.max(most, middleware.figures().bytesInBuffers);
    }
    assert.ok(bytes > LARGE_BYTES);
  });
  await Promise.all(clients);
  // One of them is also read for its digest.
  assert.ok(most <= 101 * PIECE_BYTES, `${most} bytes`);
  await assertIdle(middleware);
  assert.equal(middleware.figures().completed, 100);
});

test('a file that shrinks on its way ends the connection', async (t) => {
  /** @type {string[]} */
  const lines = [];
  const { root, port, middleware } = await hostOf(t, { log: (line) => lines.push(line) });
  const path = write(root, 'large.bin', noise(LARGE_BYTES));
  const socket = connect(port, '127.0.0.1');
  socket.write(headOf('/media/large.bin'));
  await take(socket, 100_000);
  truncateSync(path, 1000);
  socket.on('error', () => {});
  socket.resume();
  await once(socket, 'close');
  await assertIdle(middleware);
  assert.equal(middleware.figures().failed, 1);
  assert.match(lines.join(), /GET \/media\/large.bin: the file has shrunk/);
});

test('a first read that fails is a 500', async (t) => {
  const accounts = new Accounts();
  const path = write(folderOf(t), 'a', 'short');
  const port = await listen(t, (_, response) => {
    accounts.begin();
    const file = new OpenFile(openSync(path, 'r'), 100, accounts);
    // Larger than the file has ever been: as if it had shrunk right after it was opened.
    const parts = [new FileSlice(file, 50, 50)];
    file.release();
    const failed = () => ({ status: 500, fields: ['content-length', '5'], parts: [Buffer.from('wrong')] });
    const context = {
      accounts,
      end: /** @type {const} */ ('completed'),
      sendTimeoutMs: 60_000,
      failed,
      log: () => {},
    };
    send(response, { status: 200, fields: ['content-length', '50'], parts }, context);
  });
  const { status, body } = await ask(port, '/');
  assert.deepEqual([status, String(body)], [500, 'wrong']);
  await accounts.idle();
  assert.equal(accounts.figures().failed, 1);
});

test('a client that takes nothing is cut off', async (t) => {
  const { root, port, middleware } = await hostOf(t, { sendTimeoutMs: 100, log: () => {} });
  write(root, 'large.bin', noise(LARGE_BYTES));
  const socket = connect(port, '127.0.0.1');
  socket.on('error', () => {});
  socket.write(headOf('/media/large.bin'));
  await take(socket, 1);
  await assertIdle(middleware);
  assert.equal(middleware.figures().limited, 1);
  socket.destroy();
});

test('one request too many is told to come again', async (t) => {
  const { root, port, middleware } = await hostOf(t, { maxRequests: 2 });
  write(root, 'large.bin', noise(LARGE_BYTES));
  const slow = await Promise.all(
    [1, 2].map(async () => {
      const socket = connect(port, '127.0.0.1');
      socket.write(headOf('/media/large.bin'));
      await take(socket, 1);
      return socket;
    }),
  );
  const { status, fields, body } = await ask(port, '/media/large.bin');
  assert.deepEqual(
    [status, fields.get('retry-after'), String(body)],
    [503, '1', '{"error":"Server is busy"}'],
  );
  for (const socket of slow) socket.destroy();
  await assertIdle(middleware);
  assert.equal((await ask(port, '/media/none')).status, 404);
});
