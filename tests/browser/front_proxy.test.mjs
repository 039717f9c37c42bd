// Real front proxies: in front of the gateway, and in front of an app asking the gateway.

import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { Program, SLOW_UPLOAD, slowly, startSite } from './front_site.mjs';
import { missing } from './fronts.mjs';
import { consent, lastingCookies, launchBrowser, newDevice, signIn, stopAll } from './harness.mjs';

const ADA = '100000001';
const SESSION = '__Host-claviger';
const MEGABYTE = Buffer.alloc(1024 * 1024, 'x');
const NAVIGATION = { accept: 'text/html', 'sec-fetch-mode': 'navigate', 'sec-fetch-dest': 'document', 'sec-fetch-site': 'none' };
const TARGETS = [
  '/inbox?a=b&c=d',
  '/inbox?next=%2Fx%26y%3Dz&w=%3F',
  '/a%2Fb/c',
  '/a%20b?c=d+e%20f',
  '/%C3%A4/%E2%82%AC?q=%C3%BC',
  '/a?b=c?d&e=/f',
];
const ALL_OF_THAT = '/r%20%C3%A4/x%2Fy?a=1&b=%26%3D%3F&c=%2Fz+%E2%82%AC?d';

const SITES = [
  ...['nginx', 'caddy', 'haproxy', 'apache', 'envoy'].map((front) => [front, 'front-proxy']),
  ...['nginx', 'caddy', 'envoy'].map((front) => [front, 'forward-auth']),
];

let browser;
before(async () => {
  browser = await launchBrowser();
});
after(stopAll);

for (const [front, guide] of SITES) {
  describe(`${front}, ${guide}`, { skip: missing(front) }, () => {
    const passesOn = guide === 'front-proxy';
    let site;
    let origin;
    let page;
    let firstCookie;
    let uploads;
    let newKeys;
    let app;

    // The policies of Claviger's own pages allow no script, and those of the tests run there.
    const settings = { ignoreHTTPSErrors: true, bypassCSP: true };
    const newPage = async () => (await newDevice(browser, settings)).newPage();
    const cookieOf = async () => (await page.context().cookies(origin)).find(({ name }) => name === SESSION);
    const program = () => new Program(origin, { cookie: `${SESSION}=${firstCookie.value}`, origin });

    const start = async () => {
      site = await startSite(front, guide);
      origin = site.origin;
      page = await newPage();
      await signIn(page, `${origin}${ALL_OF_THAT}`, ADA);
      firstCookie = await cookieOf();
      // They take their time while the other tests run.
      uploads = [{}, { 'content-length': SLOW_UPLOAD.bytes }].map((headers) => (
        program().send('POST', '/upload', { headers, body: slowly() }).catch((error) => error)
      ));
      newKeys = site.changeKeys();
      newKeys.catch(() => {});
      app = program();
    };

    // Only for the tests that run.
    let started;
    beforeEach(() => started ??= start());
    after(() => app?.close());

    test('a user signs in, and arrives at the address that was asked for', async () => {
      assert.equal(page.url(), `${origin}${ALL_OF_THAT}`);
      const told = JSON.parse(await page.locator('body').innerText());
      assert.equal(told.url, ALL_OF_THAT);
      assert.equal(told.headers['x-auth-user'], ADA);
      assert.equal(told.headers['x-auth-name'], 'ada_builds');
      assert.equal(told.headers.host.split(':')[0], 'localhost');
    });

    test('the sign-in leads back to each kind of address', async () => {
      const nobody = new Program(origin);
      for (const target of TARGETS) {
        const { status, headers } = await nobody.send('GET', target, { headers: NAVIGATION });
        const address = new URL(headers.location, origin);
        assert.deepEqual([status, address.origin, address.pathname], [303, origin, '/auth/sign-in'], target);
        assert.equal(address.searchParams.get('return_to'), target);
      }
      nobody.close();
    });

    test('the cookie has the strictest attributes', async () => {
      const cookies = await lastingCookies(page, origin);
      assert.deepEqual(cookies.map(({ name }) => name), [SESSION]);
      const { httpOnly, secure, sameSite, path, domain, name, value } = cookies[0];
      assert.deepEqual(
        { httpOnly, secure, sameSite, path, domain },
        { httpOnly: true, secure: true, sameSite: 'Lax', path: '/', domain: 'localhost' },
      );
      assert.ok(name.length + value.length < 300);
    });

    test('only the gateway sets identity headers', async () => {
      const headers = { 'x-auth-user': 'evil', X_Auth_User: 'evil', accept: 'application/json' };
      const told = JSON.parse((await app.send('GET', '/', { headers })).text);
      assert.equal(told.headers['x-auth-user'], ADA);
      assert.equal(told.headers.x_auth_user, undefined);
    });

    test('the app sees from where a request came', async () => {
      const headers = { 'x-forwarded-for': '192.0.2.1' };
      const told = JSON.parse((await app.send('GET', '/', { headers })).text);
      const expected = passesOn ? /^127\.0\.0\.2, 127\.0\.0\.1$/ : /(^|, ?)127\.0\.0\.2$/;
      assert.match(told.headers['x-forwarded-for'], expected);
    });

    test('a cross-site request does not reach the app', async () => {
      for (const body of [[], [MEGABYTE, MEGABYTE, MEGABYTE]]) {
        const headers = { 'sec-fetch-site': 'cross-site', origin: 'https://evil.example' };
        assert.equal((await app.send('POST', '/upload', { headers, body })).status, 403);
      }
    });

    test('an address cannot add headers to the redirect', async () => {
      const nobody = new Program(origin);
      const hostile = '/%0d%0aSet-Cookie:%20__Host-claviger=planted%0d%0a%0d%0a<script>';
      const { headers } = await nobody.send('GET', encodeURI(hostile).replaceAll('%25', '%'), { headers: NAVIGATION });
      assert.equal(headers['set-cookie'], undefined);
      assert.ok(!(headers.location ?? '').includes('\n'));
      nobody.close();
    });

    test('a large post of a stranger gets its answer, and so does what follows', async () => {
      const nobody = new Program(origin);
      for (let round = 0; round < 4; round += 1) {
        const headers = { accept: 'application/json', 'x-auth-user': 'evil' };
        const body = [MEGABYTE, MEGABYTE, MEGABYTE];
        // nginx reads nothing for five seconds on a connection whose upload it refused.
        const stranger = new Program(origin);
        const refused = await stranger.send('POST', '/upload', { headers, body });
        stranger.close();
        assert.equal(refused.status, 401);
        if (passesOn) assert.equal(JSON.parse(refused.text).error, 'sign_in_required');
        assert.equal((await nobody.send('GET', '/', { headers })).status, 401);
        assert.equal((await app.send('GET', '/')).status, 200);
      }
      nobody.close();
    });

    test('the page of a stranger learns why a large upload was refused', async () => {
      const stranger = await newPage();
      await stranger.goto(`${origin}/auth/sign-in`);
      const statuses = await stranger.evaluate(async () => {
        const upload = () => fetch('/upload', { method: 'POST', body: new Uint8Array(3 << 20) });
        const answers = await Promise.all([upload(), upload(), upload()]);
        return answers.map(({ status }) => status);
      });
      assert.deepEqual(statuses, [401, 401, 401]);
      await stranger.context().close();
    });

    test('an upload passes at once, of any size', async () => {
      const body = Array.from({ length: 20 }, () => MEGABYTE);
      const { status, text } = await app.send('POST', '/upload', { body });
      assert.deepEqual([status, text], [200, JSON.stringify({ bytes: 20 * MEGABYTE.length })]);
    });

    test('a server-sent stream flows', async () => {
      const events = await page.evaluate(() => new Promise((resolve, reject) => {
        const source = new EventSource('/events');
        const seen = [];
        source.onerror = () => reject(new Error('the stream broke'));
        source.onmessage = ({ data }) => {
          seen.push(data);
          if (data === 'first') fetch('/tick', { method: 'POST' });
          else {
            source.close();
            resolve(seen);
          }
        };
      }));
      assert.deepEqual(events, ['first', 'second']);
    });

    test('a websocket opens for the user, and not for a stranger', async () => {
      const talk = () => new Promise((resolve) => {
        const socket = new WebSocket(`wss://${location.host}/socket`);
        socket.onopen = () => socket.send('hello');
        socket.onmessage = ({ data }) => { socket.close(); resolve(data); };
        socket.onerror = () => resolve('refused');
      });
      assert.equal(await page.evaluate(talk), 'hello');
      const stranger = await newPage();
      await stranger.goto(`${origin}/auth/sign-in`);
      assert.equal(await stranger.evaluate(talk), 'refused');
      await stranger.context().close();
    });

    test('a change of keys renews the cookie, beside the cookies of the app', async () => {
      await newKeys;
      const { status, headers } = await app.send('GET', '/cookie');
      assert.equal(status, 200);
      const set = Object.fromEntries(headers['set-cookie'].map((cookie) => cookie.split(/[=;]/, 2)));
      assert.deepEqual(Object.keys(set).sort(), [SESSION, 'of-the-app']);
      assert.notEqual(set[SESSION], firstCookie.value);
      const renewed = await app.send('GET', '/', { headers: { cookie: `${SESSION}=${set[SESSION]}` } });
      assert.deepEqual([renewed.status, renewed.headers['set-cookie']], [200, undefined]);
      await page.goto(`${origin}/inbox`);
      assert.notEqual((await cookieOf()).value, firstCookie.value);
    });

    test('an upload may take longer than every time limit', async () => {
      for (const answer of await Promise.all(uploads)) {
        assert.deepEqual([answer.status, answer.text], [200, JSON.stringify({ bytes: SLOW_UPLOAD.bytes })]);
      }
    });

    test('a sign-out counts at once, and the next sign-in asks again', async () => {
      const other = await page.context().newPage();
      await other.goto(`${origin}/inbox`);
      const closed = other.evaluate(() => new Promise((resolve) => {
        const socket = new WebSocket(`wss://${location.host}/socket`);
        socket.onopen = () => { window.opened = true; };
        socket.onclose = () => resolve('closed');
      })).catch((error) => error);
      await other.waitForFunction(() => window.opened);
      await page.goto(`${origin}/auth/devices`);
      await page.getByRole('button', { name: 'Sign out here' }).click();
      await page.getByRole('heading', { name: 'You are signed out' }).waitFor();
      assert.deepEqual(await lastingCookies(page, origin), []);
      assert.equal((await app.send('GET', '/')).status, 401);
      if (passesOn) assert.equal(await closed, 'closed');
      await other.close();
      await page.locator('#sign-in').click();
      await consent(page, origin, ADA);
    });
  });
}
