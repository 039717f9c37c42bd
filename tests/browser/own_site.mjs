// A site on plain HTTP at localhost: the gateway, the mock provider, and an app of the test's own.

import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freePort, gateway, startProgram, stopLater } from './harness.mjs';

/** The pages of the app, by their paths. Any other path is a page that says its name. */
const PAGES = {
  '/form': `
    <h1>Write</h1>
    <form method="post" action="/send">
      <input name="title"><textarea name="text"></textarea><input name="word" type="password">
      <button>Send</button>
    </form>`,
  '/with-worker': `
    <h1>Worker</h1>
    <script>
      navigator.serviceWorker.register('/worker.js').then(() => navigator.serviceWorker.ready).then(() => {
        if (navigator.serviceWorker.controller) document.title = 'controlled';
        navigator.serviceWorker.addEventListener('controllerchange', () => { document.title = 'controlled'; });
      });
    </script>`,
  '/with-frame': '<h1>Frame</h1><iframe src="/framed" title="framed"></iframe>',
};

const WORKER = `
  addEventListener('install', () => skipWaiting());
  addEventListener('activate', (event) => event.waitUntil(clients.claim()));
  addEventListener('fetch', (event) => event.respondWith(fetch(event.request)));
`;

/**
 * Starts the site. Resolves to its `origin`, the address of the `mock`, and `sent`: the bodies of
 * all forms that reached the app.
 *
 * `app`: the port of another app; `through`: leads to the mock by another address; `settings`:
 * gives further settings for an origin, as TOML.
 */
export async function startOwnSite({ app, through = (mock) => mock, settings = () => '' } = {}) {
  const directory = await mkdtemp(join(tmpdir(), 'claviger-own-'));
  const sent = [];
  const port = await freePort();
  app ??= await startApp(sent);
  const origin = `http://localhost:${port}`;
  const mock = await startProgram(
    gateway(),
    ['mock-twitch', '--listen', '127.0.0.1:0', '--redirect-uri', `${origin}/auth/callback`],
    { ready: /authorize URL\s+(http:\/\/[^/]+)/, remove: directory },
  );
  const keys = join(directory, 'claviger.keys');
  execFileSync(gateway(), ['keys', 'generate', '--file', keys], { stdio: 'ignore' });
  await writeFile(join(directory, 'claviger.toml'), `
    listen = "127.0.0.1:${port}"
    public_url = "${origin}"
    upstream = "http://127.0.0.1:${app}"
    insecure_plain_http_for_development = true
    keyring_file = "${keys}"
    [store]
    path = "${directory}/claviger.db"
    [provider]
    client_id = "claviger0mock0demo0client0id00"
    client_secret = "claviger0mock0demo0secret00000"
    mock_url_for_development = "${await through(mock.ready[1])}"
    ${settings(origin)}
  `);
  await startProgram(gateway(), ['serve', '--config', join(directory, 'claviger.toml')], { ready: /ready/ });
  return { origin, mock: mock.ready[1], sent };
}

async function startApp(sent) {
  const app = createServer({ maxHeaderSize: 64 * 1024 }, async (request, response) => {
    const { pathname } = new URL(request.url, 'http://app');
    let body = '';
    for await (const chunk of request.setEncoding('utf8')) body += chunk;
    if (request.method === 'POST') sent.push(body);
    if (pathname === '/worker.js') {
      response.writeHead(200, { 'content-type': 'text/javascript' }).end(WORKER);
    } else {
      const page = PAGES[pathname] ?? '<h1>Page</h1>';
      response.writeHead(200, { 'content-type': 'text/html; charset=utf-8' });
      response.end(`<!doctype html><title>${pathname}</title>${page}`);
    }
  });
  await once(app.listen(0, '127.0.0.1'), 'listening');
  stopLater(async () => {
    app.closeAllConnections();
    app.close();
    await once(app, 'close');
  });
  return app.address().port;
}
