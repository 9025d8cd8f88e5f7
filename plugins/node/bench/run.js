// The same files from this middleware, `express.static` and a plain pipe, side by side: `npm run bench`.
//
// Each server has a process of its own, and each has its turn in each round, so that what else the machine does falls on
// all alike; the median of the rounds counts. It needs `wrk`. SECONDS and ROUNDS say how long.

import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const SECONDS = Number(process.env.SECONDS ?? 5);
const ROUNDS = Number(process.env.ROUNDS ?? 3);
const SLOW_READERS = 200;
const KIND = ['millpond', 'express.static', 'pipe'];
const FILES = [
  { name: '4 KB', path: 'small.gif', bytes: 4_000, connections: 32 },
  { name: '500 KB', path: 'medium.gif', bytes: 500_000, connections: 32 },
  { name: '50 MB', path: 'large.mp4', bytes: 50_000_000, connections: 4 },
];

const root = mkdtempSync(join(tmpdir(), 'millpond-bench-'));
try {
  for (const { path, bytes } of FILES) writeFileSync(join(root, path), Buffer.alloc(bytes, 'media'));
  await rates();
  await slowReaders();
} finally {
  rmSync(root, { recursive: true });
}

async function rates() {
  const servers = await Promise.all(KIND.map(start));
  for (const { name, path, connections } of FILES) {
    /** @type {number[][]} */
    const measured = KIND.map(() => []);
    for (let round = 0; round < ROUNDS; round += 1) {
      for (const [index, { port }] of servers.entries()) {
        measured[index].push(load(`http://127.0.0.1:${port}/media/${path}`, connections));
      }
    }
    const medians = measured.map((rates) => rates.sort((a, b) => a - b)[Math.floor(rates.length / 2)]);
    console.log(`${name}: ${KIND.map((kind, index) => `${kind} ${medians[index].toFixed(0)}/s`).join(', ')}`);
  }
  for (const { stop } of servers) await stop();
}

/**
 * Requests a second.
 * @param {string} url
 * @param {number} connections
 */
function load(url, connections) {
  const said = execFileSync('wrk', ['-t1', `-c${connections}`, `-d${SECONDS}s`, url], { encoding: 'utf8' });
  if (/Non-2xx|Socket errors/.test(said)) throw new Error(said);
  return Number(/Requests\/sec:\s+([\d.]+)/.exec(said)?.[1]);
}

/** What the process takes, and how many files it has open, for so many clients that have read a little and no more. */
async function slowReaders() {
  for (const kind of KIND) {
    const server = await start(kind);
    load(`http://127.0.0.1:${server.port}/media/medium.gif`, 8);
    const before = server.memoryKib();
    const clients = await Promise.all(Array.from({ length: SLOW_READERS }, () => slowReader(server.port)));
    // The servers write until the kernel takes no more: that is when the memory stays as it is.
    let [memory, last] = [server.memoryKib(), -1];
    for (let same = 0; same < 3; same = memory === last ? same + 1 : 0) {
      await new Promise((resolve) => setTimeout(resolve, 500));
      [last, memory] = [memory, server.memoryKib()];
    }
    const open = server.openFiles();
    for (const client of clients) client.destroy();
    await Promise.all(clients.map((client) => client.closed || once(client, 'close')));
    const { port } = server;
    load(`http://127.0.0.1:${port}/media/small.gif`, 1);
    const grown = ((memory - before) / 1024).toFixed(0);
    console.log(
      `${SLOW_READERS} slow readers, ${kind}: ${grown} MiB more, ${open} files open; ` +
        `${server.openFiles()} after they have gone`,
    );
    await server.stop();
  }
}

/** @param {number} port */
async function slowReader(port) {
  const socket = connect(port, '127.0.0.1');
  socket.write('GET /media/large.mp4 HTTP/1.1\r\nhost: bench\r\n\r\n');
  await once(socket, 'readable');
  return socket;
}

/**
 * @param {string} kind
 */
async function start(kind) {
  const script = fileURLToPath(new URL('server.js', import.meta.url));
  const server = spawn(process.execPath, [script, kind, root], { stdio: ['ignore', 'pipe', 'inherit'] });
  const [port] = await once(createInterface({ input: server.stdout }), 'line');
  return {
    port: Number(port),
    memoryKib: () => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${server.pid}/status`, 'utf8'))?.[1]),
    openFiles: () => openFilesOf(Number(server.pid)),
    stop: async () => {
      server.kill();
      await once(server, 'exit');
    },
  };
}

/** Of the folder, sockets and pipes aside. @param {number} pid */
function openFilesOf(pid) {
  const folder = `/proc/${pid}/fd`;
  return execFileSync('ls', ['-l', folder], { encoding: 'utf8' })
    .split('\n')
    .filter((line) => line.includes(root)).length;
}
