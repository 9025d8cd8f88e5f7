// One of the servers that are compared: `node server.js KIND ROOT`. It prints its port.

import { createReadStream, statSync } from 'node:fs';
import { createServer } from 'node:http';
import { join } from 'node:path';
import express from 'express';
import { millpond } from '../src/index.js';

const [kind, root] = process.argv.slice(2);

/** @type {Record<string, () => import('node:http').RequestListener>} */
const LISTENERS = {
  millpond: () => {
    const middleware = millpond(root);
    return (request, response) => middleware(request, response);
  },
  'express.static': () => express().use('/media', express.static(root)),
  // As the original had it: a stream piped into the answer, and nothing that closes the file when the client goes.
  pipe: () =>
    express().get('/media/:name', (request, response) => {
      const file = join(root, request.params.name);
      response.setHeader('Content-Length', statSync(file).size);
      response.setHeader('Content-Type', 'application/octet-stream');
      createReadStream(file).pipe(response);
    }),
};

const server = createServer(LISTENERS[kind]());
server.listen(0, '127.0.0.1', () => {
  console.log(/** @type {import('node:net').AddressInfo} */ (server.address()).port);
});
