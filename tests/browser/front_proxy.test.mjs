// Real front proxies, set up as docs/forward-auth.md says, word for word but for names and ports. They end TLS, so the
// browser's cookies are those of production.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import {
  consent, freePort, gateway, launchBrowser, newDevice, signIn, startProgram, stopAll, stopLater,
} from './harness.mjs';

const ADA = '100000001';
const GUIDE = fileURLToPath(new URL('../../docs/forward-auth.md', import.meta.url));

after(stopAll);

/** The example of this language in the guide, with names and ports of this test. */
async function example(language, { front, claviger, app }) {
  const guide = await readFile(GUIDE, 'utf8');
  const [, text] = guide.split(`\`\`\`${language}\n`);
  return text
    .split('\n```')[0]
    .replaceAll('443 ssl', `127.0.0.1:${front} ssl`)
    .replace(/^app\.example \{/m, `https://localhost:${front} {\n    bind 127.0.0.1\n    tls internal`)
    .replaceAll('app.example', 'localhost')
    .replaceAll('127.0.0.1:8080', `127.0.0.1:${claviger}`)
    .replaceAll('127.0.0.1:3000', `127.0.0.1:${app}`);
}

const PROXIES = {
  async nginx(directory, ports) {
    const [key, certificate] = [join(directory, 'key.pem'), join(directory, 'certificate.pem')];
    execFileSync('openssl', [
      'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '1', '-subj', '/CN=localhost', '-keyout', key, '-out', certificate,
    ], { stdio: 'ignore' });
    const paths = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'];
    const config = `
      daemon off; pid ${directory}/nginx.pid; error_log stderr notice; user root;
      events {}
      http {
        access_log off;
        ssl_certificate ${certificate}; ssl_certificate_key ${key};
        ${paths.map((name) => `${name}_temp_path ${directory}/${name};`).join(' ')}
        ${await example('nginx', ports)}
      }`;
    await writeFile(join(directory, 'nginx.conf'), config);
    return startProgram('nginx', ['-p', directory, '-c', join(directory, 'nginx.conf'), '-e', 'stderr'], {
      ready: /start worker process /,
      remove: directory,
    });
  },

  async caddy(directory, ports) {
    const config = `{\n  admin off\n  skip_install_trust\n  auto_https disable_redirects\n}\n${await example('caddyfile', ports)}`;
    await writeFile(join(directory, 'Caddyfile'), config);
    return startProgram('caddy', ['run', '--adapter', 'caddyfile', '--config', join(directory, 'Caddyfile')], {
      ready: /serving initial configuration/,
      remove: directory,
      env: { XDG_DATA_HOME: directory, XDG_CONFIG_HOME: directory, HOME: directory },
    });
  },
};

/** An app that says what it was told. */
async function startApp() {
  const app = createServer((request, response) => {
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify({ url: request.url, headers: request.headers }));
  }).listen(0, '127.0.0.1');
  await once(app, 'listening');
  stopLater(async () => {
    app.closeAllConnections();
    app.close();
    await once(app, 'close');
  });
  return app.address().port;
}

/** A front proxy, Claviger beside it, an app behind it, and the mock to sign in at. */
async function startSite(proxy) {
  const directory = await mkdtemp(join(tmpdir(), `claviger-${proxy}-`));
  const ports = { front: await freePort(), claviger: await freePort(), app: await startApp() };
  const origin = `https://localhost:${ports.front}`;
  const mock = await startProgram(
    gateway(),
    ['mock-twitch', '--listen', '127.0.0.1:0', '--redirect-uri', `${origin}/auth/callback`],
    { ready: /authorize URL\s+(http:\/\/[^/]+)/ },
  );
  const key = execFileSync(gateway(), ['keys', 'generate'], { encoding: 'utf8' }).trim();
  await writeFile(join(directory, 'claviger.toml'), `
    listen = "127.0.0.1:${ports.claviger}"
    public_url = "${origin}"
    trusted_proxies = ["127.0.0.1"]
    insecure_plain_http_for_development = true
    keyring = ["${key}"]
    [store]
    path = "${directory}/claviger.db"
    [provider]
    client_id = "claviger0mock0demo0client0id00"
    client_secret = "claviger0mock0demo0secret00000"
    mock_url_for_development = "${mock.ready[1]}"
  `);
  await startProgram(gateway(), ['serve', '--config', join(directory, 'claviger.toml')], { ready: /ready/ });
  await PROXIES[proxy](directory, ports);
  return origin;
}

for (const proxy of Object.keys(PROXIES)) {
  describe(`behind ${proxy}`, () => {
    let origin;
    let page;
    before(async () => {
      origin = await startSite(proxy);
      const device = await newDevice(await launchBrowser(), { ignoreHTTPSErrors: true });
      page = await device.newPage();
    });

    test('a person is led to the sign-in, and the app is told who came', async () => {
      await signIn(page, `${origin}/inbox`, ADA);
      assert.equal(page.url(), `${origin}/inbox`);
      const told = JSON.parse(await page.locator('body').innerText());
      assert.equal(told.headers['x-auth-user'], ADA);
      assert.equal(told.headers['x-auth-name'], 'ada_builds');
    });

    test('the cookie is as strict as browsers can make it', async () => {
      const cookies = await page.context().cookies(origin);
      const [cookie] = cookies.filter(({ name }) => name === '__Host-claviger');
      assert.deepEqual(
        { httpOnly: cookie.httpOnly, secure: cookie.secure, sameSite: cookie.sameSite, path: cookie.path, domain: cookie.domain },
        { httpOnly: true, secure: true, sameSite: 'Lax', path: '/', domain: 'localhost' },
      );
      assert.ok(cookie.name.length + cookie.value.length < 300);
      assert.deepEqual(cookies.map(({ name }) => name).filter((name) => name.includes('login')), []);
    });

    test('nobody tells the app who they are but the gateway', async () => {
      const headers = { 'x-auth-user': 'evil', 'X_Auth_User': 'evil', accept: 'application/json' };
      const told = await (await page.request.get(`${origin}/`, { headers })).json();
      assert.equal(told.headers['x-auth-user'], ADA);
      assert.equal(told.headers.x_auth_user, undefined);
    });

    test('a request of nobody does not reach the app', async () => {
      const stranger = await newDevice(page.context().browser(), { ignoreHTTPSErrors: true });
      const headers = { 'x-auth-user': 'evil', accept: 'application/json' };
      const answer = await stranger.request.get(`${origin}/`, { headers, maxRedirects: 0 });
      assert.ok([401, 303].includes(answer.status()), String(answer.status()));
    });

    test('an address cannot write headers into the way to the sign-in', async () => {
      const stranger = await newDevice(page.context().browser(), { ignoreHTTPSErrors: true });
      const headers = { accept: 'text/html', 'sec-fetch-mode': 'navigate', 'sec-fetch-dest': 'document' };
      const hostile = `${origin}/%0d%0aSet-Cookie:%20__Host-claviger=planted%0d%0a%0d%0a<script>`;
      const answer = await stranger.request.get(hostile, { headers, maxRedirects: 0 });
      assert.equal(answer.headers()['set-cookie'], undefined);
      assert.ok(!(answer.headers().location ?? '').includes('\n'));
    });

    test('a request that another site makes does not reach the app', async () => {
      const headers = { 'sec-fetch-site': 'cross-site', origin: 'https://evil.example' };
      const answer = await page.request.post(`${origin}/`, { headers });
      assert.equal(answer.status(), 403);
    });

    test('a sign-out counts at once, and the next sign-in asks anew', async () => {
      await page.goto(`${origin}/auth/devices`);
      await page.getByRole('button', { name: 'Sign out here' }).click();
      await page.getByRole('heading', { name: 'You are signed out' }).waitFor();
      assert.deepEqual((await page.context().cookies(origin)).map(({ name }) => name), []);
      await page.locator('#sign-in').click();
      await consent(page, origin, ADA);
    });
  });
}
