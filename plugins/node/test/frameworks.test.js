import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import middie from '@fastify/middie';
import express from 'express';
import Fastify from 'fastify';
import { millpond } from '../src/index.js';
import { ask, assertIdle, folderOf, headOf, listen, noise, write } from './support.js';
import { connect } from 'node:net';

/** @param {import('node:test').TestContext} t */
function folder(t) {
  const root = folderOf(t);
  write(root, 'a.gif', noise(100_000));
  write(root, 'large.bin', noise(20 * 1024 * 1024));
  return root;
}

/**
 * What is media is served, ranges and all; the rest is the application's; a client that goes leaves nothing.
 * @param {number} port
 * @param {import('../index.js').Middleware} middleware
 */
async function check(port, middleware, prefix = '') {
  const whole = await ask(port, `${prefix}/media/a.gif`);
  assert.deepEqual([whole.status, whole.body], [200, noise(100_000)]);
  assert.equal(whole.fields.get('content-length'), '100000');
  const part = await ask(port, `${prefix}/media/a.gif`, { fields: { range: 'bytes=5-9' } });
  assert.deepEqual([part.status, part.body], [206, noise(100_000).subarray(5, 10)]);
  const missing = await ask(port, `${prefix}/media/none`);
  assert.deepEqual([missing.status, String(missing.body)], [404, '{"error":"Media not found"}']);
  assert.equal(String((await ask(port, '/hello')).body), 'hello');

  const socket = connect(port, '127.0.0.1');
  socket.write(headOf(`${prefix}/media/large.bin`));
  await once(socket, 'readable');
  socket.destroy();
  await assertIdle(middleware);
  assert.equal(middleware.figures().aborted, 1);
}

test('Express', async (t) => {
  const middleware = millpond(folder(t));
  const app = express();
  app.use(middleware);
  app.get('/hello', (_, response) => void response.send('hello'));
  await check(await listen(t, app), middleware);
});

test('Express, mounted below a path', async (t) => {
  const middleware = millpond(folder(t));
  const app = express();
  app.use('/files', middleware);
  app.get('/hello', (_, response) => void response.send('hello'));
  await check(await listen(t, app), middleware, '/files');
});

test('Fastify', async (t) => {
  const middleware = millpond(folder(t));
  const app = Fastify({ forceCloseConnections: true });
  await app.register(middie);
  app.use(middleware);
  app.get('/hello', () => 'hello');
  await app.listen({ port: 0, host: '127.0.0.1' });
  t.after(() => app.close());
  await check(/** @type {import('node:net').AddressInfo} */ (app.server.address()).port, middleware);
});

test('node:http, with something else behind', async (t) => {
  const middleware = millpond(folder(t));
  const port = await listen(t, (request, response) =>
    middleware(request, response, () => response.end('hello')),
  );
  await check(port, middleware);
});
