#!/usr/bin/env node
// Serves a folder of media with node:http.

import { createServer } from 'node:http';
import { parseArgs } from 'node:util';
import { millpond } from '../src/index.js';
import { HEAD_BYTES } from '../src/limits.js';
import { optionOf } from '../src/settings.js';

const USAGE = 'usage: millpond-node [DIR] [--listen HOST:PORT] [--mount-path PATH] [--setting KEY=VALUE ...]';

/** Milliseconds for which running answers are let end. */
const GRACE_MS = 10_000;

function run() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      help: { type: 'boolean', short: 'h' },
      listen: { type: 'string', default: '127.0.0.1:8080' },
      'mount-path': { type: 'string' },
      setting: { type: 'string', multiple: true, default: [] },
    },
  });
  if (values.help) {
    console.log(USAGE);
    return;
  }
  if (positionals.length > 1) throw new Error(USAGE);
  const { host, port } = addressIn(values.listen);
  const middleware = millpond(positionals[0] ?? '.', optionsOf(values));
  serve(middleware, host, port);
}

/**
 * @param {{ 'mount-path'?: string, setting: string[] }} values
 * @returns {import('../index.js').Options}
 */
function optionsOf({ 'mount-path': mountPath, setting }) {
  const settings = setting.map((pair) => {
    const at = pair.indexOf('=');
    if (at < 0) throw new Error(`--setting ${pair}: KEY=VALUE`);
    return optionOf(pair.slice(0, at), pair.slice(at + 1));
  });
  // A secret on the command line is there for all to see.
  const keys = process.env.MILLPOND_SIGNING_KEYS;
  const fromEnvironment = keys === undefined ? {} : optionOf('signing-keys', keys);
  const at = mountPath === undefined ? {} : { mountPath };
  return Object.assign({}, fromEnvironment, ...settings, at);
}

/** @param {string} listen */
function addressIn(listen) {
  const parts = /^(?:\[([0-9a-f:.]+)\]|([^:]+)):(\d+)$/i.exec(listen);
  if (!parts || Number(parts[3]) > 65_535) throw new Error(`--listen ${listen}: HOST:PORT`);
  return { host: parts[1] ?? parts[2], port: Number(parts[3]) };
}

/**
 * @param {import('../index.js').Middleware} middleware
 * @param {string} host
 * @param {number} port
 */
function serve(middleware, host, port) {
  // The checks of `Host` are the middleware's, whose answers say what is wrong.
  const server = createServer({ maxHeaderSize: HEAD_BYTES, requireHostHeader: false });
  /** @type {import('node:http').RequestListener} */
  const answer = (request, response) => {
    // HTTP/1.1 keeps connections anyway; the fields that Node says it with are none of the media's.
    if (request.httpVersion === '1.1' && response.shouldKeepAlive) response.removeHeader('Connection');
    middleware(request, response);
  };
  server.on('request', answer);
  // Nobody waits for content here, so it is answered with the final status; likewise whatever else is expected.
  server.on('checkContinue', answer);
  server.on('checkExpectation', answer);
  server.on('clientError', refuse);
  server.on('error', quit);
  server.listen(port, host, () => {
    const { address, family, port } = /** @type {import('node:net').AddressInfo} */ (server.address());
    console.log(`listening on http://${family === 'IPv6' ? `[${address}]` : address}:${port}`);
  });
  process.on('SIGUSR2', () => console.log(JSON.stringify(middleware.figures())));
  let isStopping = false;
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGQUIT']) {
    process.on(signal, () => {
      if (isStopping) process.exit(1);
      isStopping = true;
      stop(server);
    });
  }
}

/** @param {import('node:http').Server} server */
function stop(server) {
  server.close();
  server.closeIdleConnections();
  setTimeout(() => server.closeAllConnections(), GRACE_MS).unref();
}

/** Signals that would end the process at once, or start a debugger, and ask for what there is not here. */
function ignoreSignals() {
  for (const signal of ['SIGHUP', 'SIGUSR1']) {
    process.on(signal, () => console.error(`millpond-node: ${signal}: there is nothing to read again`));
  }
}

/** Response to a head that Node's parser rejects, by its error code. @type {Map<string | undefined, [string, string]>} */
const UNREADABLE = new Map([
  ['HPE_HEADER_OVERFLOW', ['431 Request Header Fields Too Large', 'Header fields too large']],
  // The parser knows a list of methods and no others, so that the guest cannot refuse them.
  ['HPE_INVALID_METHOD', ['501 Not Implemented', 'Unknown method']],
]);

/**
 * A head that the parser cannot read.
 * @param {NodeJS.ErrnoException} error
 * @param {import('node:stream').Duplex} socket
 */
function refuse(error, socket) {
  if (error.code === 'ECONNRESET' || !socket.writable) return void socket.destroy();
  const [status, message] = UNREADABLE.get(error.code) ?? ['400 Bad Request', 'Malformed request'];
  const json = JSON.stringify({ error: message });
  const fields = [
    'content-type: application/json',
    `content-length: ${json.length}`,
    'cache-control: no-store',
  ];
  fields.push('x-content-type-options: nosniff', `date: ${new Date().toUTCString()}`, 'connection: close');
  socket.end(`HTTP/1.1 ${status}\r\n${fields.join('\r\n')}\r\n\r\n${json}`);
}

/** @param {unknown} error @returns {never} */
function quit(error) {
  console.error(`millpond-node: ${error instanceof Error ? error.message : error}`);
  process.exit(2);
}

try {
  ignoreSignals();
  run();
} catch (error) {
  quit(error);
}
