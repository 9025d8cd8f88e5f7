'use strict';

// The original's media route as its report gives it: a file stream piped into the answer, for full and for
// range answers, and nothing that closes the file when the client goes. HANDLERS=1 adds the three handlers
// that the report then proposed. Its mistakes are kept, but one: an id is looked up only if it can be an id,
// so that nobody who runs this shares more than the store.
//
// node server.js STORE, and PORT=N where it is to listen on no free port.

const fs = require('node:fs');
const path = require('node:path');
const express = require('express');

const store = process.argv[2];
const withHandlers = process.env.HANDLERS === '1';

const MINUTE_MS = 60_000;

const app = express();

app.get('/api/media/:mediaId', (req, res) => {
  const { mediaId } = req.params;
  const file = path.join(store, mediaId.slice(0, 2), mediaId);
  if (!/^[0-9a-f]{64}$/.test(mediaId) || !fs.existsSync(file)) {
    res.status(404).json({ error: 'Media not found' });
    return;
  }
  // A manifest that is missing or damaged left the media open to all.
  let manifest = { media_type: 'application/octet-stream', access: 'public' };
  try {
    manifest = JSON.parse(fs.readFileSync(`${file}.json`, 'utf8'));
  } catch {
    // As above.
  }
  if (manifest.access !== 'public') {
    res.status(401).json({ error: 'Authentication required for private media' });
    return;
  }

  const { size } = fs.statSync(file);
  const { range } = req.headers;
  let stream;
  res.setHeader('Accept-Ranges', 'bytes');
  res.setHeader('Content-Type', manifest.media_type);
  if (range) {
    const [first, last] = range.replace('bytes=', '').split('-');
    const start = parseInt(first, 10);
    const end = last ? parseInt(last, 10) : size - 1;
    res.status(206);
    res.setHeader('Content-Range', `bytes ${start}-${end}/${size}`);
    res.setHeader('Content-Length', end - start + 1);
    stream = fs.createReadStream(file, { start, end });
  } else {
    res.setHeader('Content-Length', size);
    stream = fs.createReadStream(file);
  }
  console.log(`${new Date().toISOString()} GET /api/media/${mediaId} ${res.statusCode} (${manifest.access})`);
  if (withHandlers) {
    handleEnds(stream, res);
  }
  stream.pipe(res);
});

function handleEnds(stream, res) {
  stream.on('error', () => {
    if (!res.headersSent) {
      res.status(500).json({ error: 'Stream error' });
    }
    stream.destroy();
  });
  stream.on('end', () => stream.destroy());
  res.on('close', () => stream.destroy());
}

const server = app.listen(Number(process.env.PORT ?? 0), '127.0.0.1', () => {
  console.log(`listening http://127.0.0.1:${server.address().port}`);
});
server.requestTimeout = 30 * MINUTE_MS;
server.headersTimeout = 35 * MINUTE_MS;
server.keepAliveTimeout = 35 * MINUTE_MS;
