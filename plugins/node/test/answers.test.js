import assert from 'node:assert/strict';
import { createHash, createHmac } from 'node:crypto';
import { renameSync, utimesSync } from 'node:fs';
import { test } from 'node:test';
import { millpond } from '../src/index.js';
import { add, ask, assertIdle, hostOf, noise, write } from './support.js';

test('a named file: its bytes and every field', async (t) => {
  const { root, port, middleware } = await hostOf(t);
  const bytes = noise(200_000);
  write(root, 'a.gif', bytes);
  const { status, fields, body } = await askOfSettled(port, '/media/a.gif');
  assert.equal(status, 200);
  assert.deepEqual(body, bytes);
  assert.match(fields.get('etag') ?? '', /^"[0-9a-f]{32}"$/);
  for (const changing of ['etag', 'date', 'last-modified']) assert.ok(fields.delete(changing), changing);
  assert.deepEqual(Object.fromEntries(fields), {
    'accept-ranges': 'bytes',
    'access-control-allow-origin': '*',
    'access-control-expose-headers':
      'accept-ranges, content-disposition, content-encoding, content-length, content-range, content-digest, date, ' +
      'etag, repr-digest, retry-after',
    'cache-control': 'public, no-cache',
    connection: 'close',
    'content-length': '200000',
    'content-type': 'image/gif',
    'cross-origin-resource-policy': 'cross-origin',
    'timing-allow-origin': '*',
    'x-content-type-options': 'nosniff',
  });
  await assertIdle(middleware);
});

test('ranges, one and several, and one that cannot be', async (t) => {
  const { root, port } = await hostOf(t);
  const bytes = noise(1000);
  write(root, 'a.bin', bytes);
  const range = (/** @type {string} */ range) => ask(port, '/media/a.bin', { fields: { range } });

  const one = await range('bytes=100-199');
  assert.equal(one.status, 206);
  assert.equal(one.fields.get('content-range'), 'bytes 100-199/1000');
  assert.deepEqual(one.body, bytes.subarray(100, 200));

  const several = await range('bytes=0-9,-10');
  assert.equal(several.status, 206);
  const [, boundary] =
    /^multipart\/byteranges; boundary=(.*)$/.exec(several.fields.get('content-type') ?? '') ?? [];
  const head = (/** @type {string} */ range) =>
    `--${boundary}\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes ${range}/1000\r\n\r\n`;
  const expected = [head('0-9'), bytes.subarray(0, 10), '\r\n', head('990-999'), bytes.subarray(990)];
  assert.deepEqual(
    several.body,
    Buffer.concat([...expected, `\r\n--${boundary}--\r\n`].map((part) => Buffer.from(part))),
  );
  assert.equal(several.fields.get('content-length'), String(several.body.length));

  const beyond = await range('bytes=1000-');
  assert.equal(beyond.status, 416);
  assert.equal(beyond.fields.get('content-range'), 'bytes */1000');
});

test('conditions, HEAD, OPTIONS, and what is not there', async (t) => {
  const { root, port, middleware } = await hostOf(t);
  write(root, 'a.txt', 'text');
  const etag = (await ask(port, '/media/a.txt')).fields.get('etag') ?? '';

  const unmodified = await ask(port, '/media/a.txt', { fields: { 'if-none-match': etag } });
  assert.equal(unmodified.status, 304);
  assert.equal(unmodified.body.length, 0);
  assert.ok(!unmodified.fields.has('content-length') && !unmodified.fields.has('transfer-encoding'));

  const head = await ask(port, '/media/a.txt', { method: 'HEAD' });
  assert.deepEqual([head.status, head.fields.get('content-length'), head.body.length], [200, '4', 0]);

  const options = await ask(port, '*', { method: 'OPTIONS' });
  assert.deepEqual([options.status, options.fields.get('allow')], [204, 'get, head, options']);

  const missing = await ask(port, '/media/none');
  assert.deepEqual([missing.status, String(missing.body)], [404, '{"error":"Media not found"}']);
  assert.equal((await ask(port, '/media/a.txt', { method: 'POST' })).status, 405);
  assert.equal((await ask(port, 'http://other.test/media/a.txt')).status, 200);
  await assertIdle(middleware);
});

test('a named file has its digest once that is known', async (t) => {
  const { root, port, middleware } = await hostOf(t);
  write(root, 'a.bin', noise(300_000));
  const digest = createHash('sha256').update(noise(300_000)).digest('base64');
  assert.ok(!(await askOfSettled(port, '/media/a.bin')).fields.has('repr-digest'));
  await assertIdle(middleware);
  assert.equal(
    (await ask(port, '/media/a.bin')).fields.get('repr-digest'),
    `sha-256=:${digest}:`.toLowerCase(),
  );
  write(root, 'a.bin', noise(300_001));
  assert.ok(!(await ask(port, '/media/a.bin')).fields.has('repr-digest'), 'that of what it was');
});

for (const length of [6, 300_000]) {
  test(`contents of one length (${length}) and modification time were one to Repr-Digest and ETag`, async (t) => {
    const { root, port, middleware } = await hostOf(t);
    const contents = ['a', 'b', 'c'].map((letter) => letter.repeat(length));
    const path = write(root, 'a.bin', contents[0]);
    const other = write(root, 'other.bin', contents[2]);
    const changes = [() => {}, () => void write(root, 'a.bin', contents[1]), () => renameSync(other, path)];
    const tags = new Set();
    for (const [place, change] of changes.entries()) {
      change();
      utimesSync(path, 1, 1);
      let answer;
      do {
        answer = await askOfSettled(port, '/media/a.bin');
        await assertIdle(middleware);
      } while (!answer.fields.has('repr-digest'));
      const digest = createHash('sha256').update(contents[place]).digest('base64');
      assert.equal(answer.fields.get('repr-digest'), `sha-256=:${digest}:`.toLowerCase());
      tags.add(answer.fields.get('etag'));
    }
    assert.equal(tags.size, 3);
  });
}

/**
 * Asks until the file's next state would have another tag: it was written just now.
 * @param {number} port
 * @param {string} target
 */
async function askOfSettled(port, target) {
  for (;;) {
    const answer = await ask(port, target);
    if (!answer.fields.get('etag')?.startsWith('w/')) return answer;
  }
}

test('variants, by what a client takes', async (t) => {
  const { root, port } = await hostOf(t);
  write(root, 'logo.svg', '<svg/>');
  write(root, 'logo.svg.br', 'brotli');
  write(root, 'pond.png', 'png');
  write(root, 'pond.png.webp', 'webp');
  const brotli = await ask(port, '/media/logo.svg', { fields: { 'accept-encoding': 'gzip, br' } });
  assert.deepEqual([String(brotli.body), brotli.fields.get('content-encoding')], ['brotli', 'br']);
  assert.equal(brotli.fields.get('content-type'), 'image/svg+xml');
  const webp = await ask(port, '/media/pond.png', { fields: { accept: 'image/webp,*/*;q=0.8' } });
  assert.deepEqual([String(webp.body), webp.fields.get('content-type')], ['webp', 'image/webp']);

  const compressed = add(root, 'compressed');
  const variants = [{ id: compressed, media_type: 'text/vtt', content_coding: 'br' }];
  const id = add(root, 'captions', { media_type: 'text/vtt', variants });
  const stored = await ask(port, `/api/media/${id}`, { fields: { 'accept-encoding': 'br' } });
  assert.deepEqual([String(stored.body), stored.fields.get('etag')], ['compressed', `"${compressed}"`]);
});

test('a named text says its charset where it is known, and a playlist its type', async (t) => {
  const { root, port } = await hostOf(t);
  const ascii = 'a'.repeat(100_000);
  /** @type {[string, string | Buffer, string][]} */
  const files = [
    ['plain.txt', 'plain', 'text/plain; charset=utf-8'],
    ['empty.txt', '', 'text/plain; charset=utf-8'],
    ['long.txt', `é${ascii}`, 'text/plain; charset=utf-8'],
    ['ascii.txt', ascii, 'text/plain'],
    ['latin1.txt', Buffer.from('naïve', 'latin1'), 'text/plain'],
    ['utf16.txt', Buffer.from('plain', 'utf16le'), 'text/plain'],
    ['iso-2022-jp.txt', '\x1b$B%F\x1b(B', 'text/plain'],
    ['page.html', '<p>é</p>', 'text/html; charset=utf-8'],
    ['a.m3u8', '#EXTM3U', 'application/vnd.apple.mpegurl'],
    ['a.ts', 'G', 'video/mp2t'],
    ['a.m4s', 'styp', 'video/iso.segment'],
    ['a.m4a', 'ftyp', 'audio/mp4'],
    ['a.mjs', 'export {}', 'text/javascript; charset=utf-8'],
    ['a.mathml', '<math/>', 'application/mathml+xml'],
    ['a.svgz', 'gzip', 'image/svg+xml'],
  ];
  for (const [name, content, mediaType] of files) {
    write(root, name, content);
    const { fields } = await ask(port, `/media/${name}`);
    assert.equal(fields.get('content-type'), mediaType, name);
    assert.equal(fields.get('content-encoding'), name === 'a.svgz' ? 'gzip' : undefined, name);
    const isActive = ['page.html', 'a.mathml', 'a.svgz'].includes(name);
    assert.equal(fields.has('content-security-policy'), isActive, name);
  }
  write(root, 'a.m3u8.gz', 'gz');
  const coded = await ask(port, '/media/a.m3u8', { fields: { 'accept-encoding': 'gzip' } });
  assert.deepEqual([String(coded.body), coded.fields.get('content-encoding')], ['gz', 'gzip']);
  const text = await ask(port, '/media/plain.txt', { fields: { accept: 'text/plain' } });
  assert.equal(text.status, 200);
});

test('stored media is served while its record is sound', async (t) => {
  const { root, port } = await hostOf(t);
  const content = 'GIF89a';
  const id = add(root, content);
  const got = await ask(port, `/api/media/${id}`);
  assert.deepEqual([got.status, String(got.body), got.fields.get('etag')], [200, content, `"${id}"`]);
  const info = await ask(port, `/api/media/${id}/info`);
  assert.deepEqual(JSON.parse(String(info.body)), {
    id,
    type: 'image/gif',
    size: 6,
    created: '2026-01-02T03:04:05Z',
  });
  for (const path of [`/media/${id.slice(0, 2)}/${id}`, `/media/${id.slice(0, 2)}/${id}.json`]) {
    assert.equal((await ask(port, path)).status, 404, 'by its name');
  }
  for (const damage of [
    { size: 7 },
    { size: '6' },
    { access: 'secret' },
    { access: 'private' },
    { created: '2026-13-02T03:04:05Z' },
    { media_type: 'image/gif\r\nx: y' },
    { variants: [{ id: 'x', media_type: 'image/gif' }] },
    { padding: ' '.repeat(20_000) },
  ]) {
    add(root, content, damage);
    assert.equal((await ask(port, `/api/media/${id}`)).status, 404, JSON.stringify(damage).slice(0, 80));
  }
  write(root, `${id.slice(0, 2)}/${id}.json`, '');
  assert.equal((await ask(port, `/api/media/${id}`)).status, 404);
});

test('private media is for those who have a signature', async (t) => {
  const secret = '000102030405060708090a0b0c0d0e0f';
  const { root, port } = await hostOf(t, { signingKeys: { k1: secret } });
  const path = `/api/media/${add(root, 'private', { access: 'private' })}`;
  const query = (/** @type {number} */ expires, ip = '') => {
    const mac = createHmac('sha256', Buffer.from(secret, 'hex'));
    mac.update(`millpond-1\nGET\n${path}\n${expires}\nk1\n${ip}\n`);
    return `?exp=${expires}&key=k1${ip && `&ip=${ip}`}&sig=${mac.digest('base64url')}`;
  };
  const later = Math.floor(Date.now() / 1000) + 3600;
  const signed = await ask(port, path + query(later));
  assert.deepEqual([signed.status, String(signed.body)], [200, 'private']);
  assert.equal(signed.fields.get('cache-control'), 'private, max-age=300');
  assert.equal((await ask(port, path + query(later, '127.0.0.0/8'))).status, 200, 'bound to the client');
  assert.equal((await ask(port, path + query(later, '192.0.2.0/24'))).status, 403, 'bound to another');
  assert.equal((await ask(port, path + query(1_000_000_000))).status, 403, 'expired');
  assert.equal((await ask(port, path)).status, 401);
  assert.equal(
    (await ask(port, `/api/media/${'0'.repeat(64)}`)).status,
    401,
    'and none is told what there is',
  );
});

test('settings', async (t) => {
  const { root, port } = await hostOf(t, {
    mountPath: '/files/',
    corsOrigins: ['https://a.example'],
    timingAllowOrigin: '',
    cacheFiles: 'no-store',
    negativeTtl: 0,
  });
  write(root, 'a.txt', 'a');
  const { fields } = await ask(port, '/files/a.txt', { fields: { origin: 'https://a.example' } });
  assert.equal(fields.get('access-control-allow-origin'), 'https://a.example');
  assert.equal(fields.get('cache-control'), 'no-store');
  assert.ok(!fields.has('timing-allow-origin'));
  assert.equal((await ask(port, '/files/b')).fields.get('cache-control'), 'no-store');
  assert.equal((await ask(port, '/media/a.txt')).status, 404);
});

test('options that cannot be used are told, and secrets are not', () => {
  for (const options of [
    { mountPath: 'media' },
    { mountPath: '/a?b' },
    { corsOrigins: ['https://a.example/'] },
    { corsMaxAge: -1 },
    { cacheFiles: 'a\r\nb' },
    { maxRequests: 0 },
    { colour: 'blue' },
  ]) {
    assert.throws(() => millpond('.', /** @type {any} */ (options)), new RegExp(Object.keys(options)[0]));
  }
  const isDiscreet = (/** @type {Error} */ error) =>
    /signing key/.test(error.message) && !/5ec2e7/.test(error.message);
  assert.throws(() => millpond('.', { signingKeys: { k1: '5ec2e7' } }), isDiscreet);
  assert.throws(() => millpond('/nowhere/at/all'), /ENOENT/);
});

test('heads that get no answer of the guest', async (t) => {
  const { root, port, middleware } = await hostOf(t);
  write(root, 'a.txt', 'a');
  for (const [status, target, fields] of /** @type {[number, string, Record<string, string>][]} */ ([
    [414, `/media/${'a'.repeat(8200)}`, {}],
    [431, '/media/a.txt', Object.fromEntries(Array.from({ length: 101 }, (_, n) => [`x-${n}`, 'a']))],
    [400, '/media/a.txt', { host: 'a/b' }],
    [400, '/media/a.txt', { host: 'u@a' }],
    [400, 'http://u@a/media/a.txt', {}],
    [400, '/media/a.txt#b', {}],
    [413, '/media/a.txt', { 'content-length': '70000' }],
  ])) {
    const answer = await ask(port, target, { fields });
    assert.equal(answer.status, status, target.slice(0, 40));
    assert.ok('error' in JSON.parse(String(answer.body)));
    assert.equal(answer.fields.get('connection'), 'close');
  }
  assert.equal(middleware.figures().rejected, 7);
  await assertIdle(middleware);
});
