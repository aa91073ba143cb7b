// Starts and stops the server under test. STEADFAST_BIN names the binary; without it, the newest of
// target/release and target/debug.
import { spawn } from 'node:child_process';
import { statSync } from 'node:fs';
import { createServer } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Connection } from '@temporalio/client';

export function binary() {
  if (process.env.STEADFAST_BIN) return process.env.STEADFAST_BIN;
  const built = ['release', 'debug']
    .map((profile) => fileURLToPath(new URL(`../../target/${profile}/steadfast`, import.meta.url)))
    .map((path) => ({ path, time: statSync(path, { throwIfNoEntry: false })?.mtimeMs }))
    .filter(({ time }) => time !== undefined)
    .sort((a, b) => b.time - a.time);
  if (built.length === 0) {
    throw new Error('no steadfast binary: cargo build -p steadfast-cli, or set STEADFAST_BIN');
  }
  return built[0].path;
}

// Not from the range of which the kernel takes ports for outgoing connections: one of those could get it
// before the server does. Each is given once.
const FIRST_PORT = 10_000;
const PORTS = 7_000;
const startsAt = Math.floor(Math.random() * PORTS);
let tried = 0;

async function freePort() {
  while (tried < PORTS) {
    const port = FIRST_PORT + ((startsAt + tried++) % PORTS);
    if (await isFree(port)) return port;
  }
  throw new Error('no free port is left');
}

function isFree(port) {
  return new Promise((resolve) => {
    const probe = createServer();
    probe.once('error', () => resolve(false));
    probe.listen(port, '127.0.0.1', () => probe.close(() => resolve(true)));
  });
}

export class Server {
  /** `flags` may need HTTP: it is served at `http`, then. */
  static async start(...flags) {
    const server = new Server();
    const port = await freePort();
    server.address = `127.0.0.1:${port}`;
    const http = await freePort();
    server.http = `http://127.0.0.1:${http}`;
    if (flags.length > 0) flags.push('--ui-port', String(http));
    server.log = '';
    server.process = spawn(
      binary(),
      ['server', 'start-dev', '--headless', '--port', String(port), '--log-level', 'warn', ...flags],
      { stdio: ['ignore', 'pipe', 'pipe'] },
    );
    for (const stream of [server.process.stdout, server.process.stderr]) {
      stream.on('data', (text) => (server.log += text));
    }
    server.ended = new Promise((resolve) => server.process.once('exit', (code) => resolve(code)));
    await server.ready();
    return server;
  }

  async ready() {
    for (const deadline = Date.now() + 30_000; ; await sleep(50)) {
      try {
        const connection = await Connection.connect({ address: this.address, connectTimeout: 1000 });
        await connection.close();
        return;
      } catch (error) {
        if (this.process.exitCode !== null || Date.now() > deadline) {
          this.process.kill('SIGKILL');
          throw new Error(`the server does not answer: ${this.log}`, { cause: error });
        }
      }
    }
  }

  /** Asks the server to end; answers its exit code. */
  async stop() {
    this.process.kill('SIGTERM');
    return await this.ended;
  }
}
