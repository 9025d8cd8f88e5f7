// A folder of media, a server over it, and a client that sees every byte.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { millpond } from '../src/index.js';

/** @typedef {{ status: number, fields: Map<string, string>, body: Buffer }} Answer */

/**
 * A folder that goes with its test.
 * @param {import('node:test').TestContext} test
 */
export function folderOf(test) {
  const root = mkdtempSync(join(tmpdir(), 'millpond-'));
  test.after(() => rmSync(root, { recursive: true }));
  return root;
}

/**
 * Writes a file.
 * @param {string} root
 * @param {string} name
 * @param {string | Uint8Array} content
 */
export function write(root, name, content) {
  const path = join(root, name);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, content);
  return path;
}

/**
 * Stores media by its content, as `millpond add` does, and gives its id.
 * @param {string} root
 * @param {string} content
 * @param {object} [record] what is recorded otherwise
 */
export function add(root, content, record = {}) {
  const id = createHash('sha256').update(content).digest('hex');
  const created = '2026-01-02T03:04:05Z';
  const whole = { media_type: 'image/gif', size: content.length, created, access: 'public', ...record };
  write(root, `${id.slice(0, 2)}/${id}`, content);
  write(root, `${id.slice(0, 2)}/${id}.json`, JSON.stringify(whole));
  return id;
}

/**
 * Bytes that differ from place to place.
 * @param {number} length
 */
export function noise(length) {
  return Buffer.from(
    Uint32Array.from({ length: Math.ceil(length / 4) }, (_, n) => n * 2_654_435_761).buffer,
    0,
    length,
  );
}

/**
 * A server that goes with its test.
 * @param {import('node:test').TestContext} test
 * @param {import('node:http').RequestListener} listener
 */
export async function listen(test, listener) {
  const server = createServer(listener);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  test.after(() => {
    server.close();
    server.closeAllConnections();
  });
  return /** @type {import('node:net').AddressInfo} */ (server.address()).port;
}

/**
 * Middleware over a folder of its own, and a server that has nothing else.
 * @param {import('node:test').TestContext} test
 * @param {import('../index.js').Options} [options]
 */
export async function hostOf(test, options) {
  const root = folderOf(test);
  const middleware = millpond(root, options);
  return { root, middleware, port: await listen(test, (request, response) => middleware(request, response)) };
}

/**
 * Sends one request on a connection of its own.
 * @param {number} port
 * @param {string} target
 * @param {{ method?: string, fields?: Record<string, string> }} [options]
 * @returns {Promise<Answer>}
 */
export async function ask(port, target, options) {
  const socket = connect(port, '127.0.0.1');
  socket.write(headOf(target, { ...options, fields: { connection: 'close', ...options?.fields } }));
  const chunks = [];
  for await (const chunk of socket) chunks.push(chunk);
  return parse(Buffer.concat(chunks));
}

/**
 * @param {string} target
 * @param {{ method?: string, fields?: Record<string, string> }} [options]
 */
export function headOf(target, { method = 'GET', fields = {} } = {}) {
  const lines = Object.entries({ host: 'millpond.test', ...fields }).map(
    ([name, value]) => `${name}: ${value}\r\n`,
  );
  return Buffer.from(`${method} ${target} HTTP/1.1\r\n${lines.join('')}\r\n`, 'latin1');
}

/** @param {Buffer} bytes @returns {Answer} */
export function parse(bytes) {
  const end = bytes.indexOf('\r\n\r\n');
  assert.notEqual(end, -1, `no whole head: ${bytes.subarray(0, 200)}`);
  const [statusLine, ...lines] = bytes.toString('latin1', 0, end).split('\r\n');
  const fields = new Map(
    lines.map((line) => /** @type {[string, string]} */ (line.toLowerCase().split(/: (.*)/s, 2))),
  );
  assert.equal(fields.size, lines.length, 'a field is there twice');
  return { status: Number(statusLine.split(' ')[1]), fields, body: bytes.subarray(end + 4) };
}

/** Descriptors of files (sockets aside) that this process has open. */
export function openDescriptors() {
  return readdirSync('/proc/self/fd').length;
}

/**
 * Checks that nothing is held any more.
 * @param {import('../index.js').Middleware} middleware
 */
export async function assertIdle(middleware) {
  await middleware.idle();
  const { openFiles, requestsInFlight, bytesInBuffers } = middleware.figures();
  assert.deepEqual(
    { openFiles, requestsInFlight, bytesInBuffers },
    { openFiles: 0, requestsInFlight: 0, bytesInBuffers: 0 },
  );
}
