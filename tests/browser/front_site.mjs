// A front proxy, Claviger, an app and the mock provider. The front proxy terminates TLS, so the
// browser's cookies are those of production.

import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, writeFile } from 'node:fs/promises';
import { Agent, request } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { setTimeout as pause } from 'node:timers/promises';
import { startApp } from './front_app.mjs';
import { SILENCE_LIMIT_S, startFront } from './fronts.mjs';
import { freePort, gateway, startProgram } from './harness.mjs';

/** The time limits of Claviger. */
const LIMIT_S = 2;
const STATE_LIMIT_MS = 15_000;

/**
 * Starts a site behind `front`, as `guide` says. Resolves to its origin and to `changeKeys`, which
 * adds a key that seals from then on.
 */
export async function startSite(front, guide) {
  const directory = await mkdtemp(join(tmpdir(), `claviger-${front}-`));
  const ports = { front: await freePort(), claviger: await freePort(), app: await startApp() };
  const origin = `https://localhost:${ports.front}`;
  const mock = await startProgram(
    gateway(),
    ['mock-twitch', '--listen', '127.0.0.1:0', '--redirect-uri', `${origin}/auth/callback`],
    { ready: /authorize URL\s+(http:\/\/[^/]+)/, remove: directory },
  );
  const keys = join(directory, 'claviger.keys');
  const addKey = () => execFileSync(gateway(), ['keys', 'generate', '--file', keys], { stdio: 'ignore' });
  addKey();
  await writeFile(join(directory, 'claviger.toml'), `
    listen = "127.0.0.1:${ports.claviger}"
    public_url = "${origin}"
    ${guide === 'front-proxy' ? `upstream = "http://127.0.0.1:${ports.app}"` : ''}
    trusted_proxies = ["127.0.0.1"]
    insecure_plain_http_for_development = true
    keyring_file = "${keys}"
    [store]
    path = "${directory}/claviger.db"
    [provider]
    client_id = "claviger0mock0demo0client0id00"
    client_secret = "claviger0mock0demo0secret00000"
    mock_url_for_development = "${mock.ready[1]}"
    [proxy]
    answer_timeout = "${LIMIT_S}s"
    [limits]
    body_pause = "${LIMIT_S}s"
    header_read = "${LIMIT_S}s"
  `);
  const claviger = await startProgram(
    gateway(),
    ['serve', '--config', join(directory, 'claviger.toml')],
    { ready: /ready/ },
  );
  await startFront(front, guide, directory, ports);
  return {
    origin,
    async changeKeys() {
      const before = claviger.log.length;
      addKey();
      await until(() => claviger.log.slice(before).some((line) => line.includes('reloaded keys')));
    },
  };
}

/** Resolves once `holds`. */
async function until(holds) {
  const deadline = Date.now() + STATE_LIMIT_MS;
  while (!holds()) {
    if (Date.now() > deadline) throw new Error(`this did not happen: ${holds}`);
    await pause(20);
  }
}

/** A program that keeps its connections, at an address of its own. */
export class Program {
  #agent = new Agent({ keepAlive: true, maxSockets: 1, rejectUnauthorized: false, localAddress: '127.0.0.2' });

  constructor(origin, headers = {}) {
    this.origin = origin;
    this.headers = headers;
  }

  /** Sends a request, with the chunks of `body`. Resolves to `{ status, headers, text }`. */
  async send(method, path, { headers = {}, body = [] } = {}) {
    const options = { method, agent: this.#agent, headers: { ...this.headers, ...headers } };
    const asking = request(`${this.origin}${path}`, { ...options, family: 4 });
    Readable.from(body).pipe(asking);
    const [response] = await once(asking, 'response');
    asking.on('error', () => {});
    let text = '';
    for await (const chunk of response.setEncoding('utf8')) text += chunk;
    return { status: response.statusCode, headers: response.headers, text };
  }

  close() {
    this.#agent.destroy();
  }
}

/** An upload that takes longer than every time limit, and pauses for less than each. */
export const SLOW_UPLOAD = { bytes: 0, chunk: Buffer.alloc(96 * 1024, 'x'), chunks: 0 };
SLOW_UPLOAD.chunks = Math.ceil((Math.max(LIMIT_S, SILENCE_LIMIT_S) + 1) * 10);
SLOW_UPLOAD.bytes = SLOW_UPLOAD.chunks * SLOW_UPLOAD.chunk.length;

/** The chunks of that upload. */
export async function* slowly() {
  for (let sent = 0; sent < SLOW_UPLOAD.chunks; sent += 1) {
    yield SLOW_UPLOAD.chunk;
    await pause(100);
  }
}
