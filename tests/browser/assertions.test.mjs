// Apps verify assertions with two independent libraries, by the code of docs/assertions.md, while
// the keys rotate under load.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { createServer, request as ask } from 'node:http';
import { createInterface } from 'node:readline';
import { after, test } from 'node:test';
import { launchBrowser, newDevice, signIn, stopAll, stopLater } from './harness.mjs';
import { startOwnSite } from './own_site.mjs';

const ADA = '100000001';
const DAY_MS = 24 * 60 * 60 * 1000;
const CLIENTS = 4;
/** jose asks for the keys again 30 seconds after it asked last, at the earliest. */
const COOLDOWN_MS = 31_000;

const PYTHON_LOOP = `
import json, sys
import jwt.api_jwt
from datetime import datetime, timedelta

ahead = timedelta()

class Clock(datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime.now(tz) + ahead

jwt.api_jwt.datetime = Clock
for line in sys.stdin:
    ahead_ms, token = line.rstrip("\\n").split(" ")
    ahead = timedelta(milliseconds=int(ahead_ms))
    try:
        answer = caller({"X-Auth-Assertion": token})
    except Exception as error:
        answer = {"error": repr(error)}
    print(json.dumps(answer), flush=True)
`;

after(stopAll);

/** The code of docs/assertions.md in a language, for the site at `origin`. */
async function documented(language, origin) {
  const page = await readFile(new URL('../../docs/assertions.md', import.meta.url), 'utf8');
  const [, code] = page.match(new RegExp(`\`\`\`${language}\n(.*?)\`\`\``, 's'));
  return code.replaceAll('https://app.example', origin);
}

/**
 * How far a verifier's clock is ahead. The gateway signs by the provider's time, and learns of a
 * step of it with its next answer: until then, that of before the step.
 */
function aheadFor(token, provider) {
  const [, claims] = token.split('.');
  const signed = claims ? JSON.parse(Buffer.from(claims, 'base64url')).iat * 1000 - Date.now() : 0;
  const distance = (ahead) => Math.abs(ahead - signed);
  return provider.aheads.reduce((best, ahead) => (distance(ahead) < distance(best) ? ahead : best));
}

/** Verifies with npm's jose. */
async function withJose(origin, provider) {
  const directory = new URL('node_modules/.claviger/', import.meta.url);
  await mkdir(directory, { recursive: true });
  const file = new URL('verify.mjs', directory);
  const clock = 'clockTolerance: 10, currentDate: request.date,';
  await writeFile(file, (await documented('js', origin)).replace('clockTolerance: 10,', clock));
  const { caller } = await import(file);
  return (token) => {
    const date = new Date(Date.now() + aheadFor(token, provider));
    return caller({ headers: { 'x-auth-assertion': token }, date });
  };
}

/** Verifies with PyPI's PyJWT, in a process that reads tokens line by line. */
async function withPyJwt(origin, provider) {
  const code = (await documented('python', origin)) + PYTHON_LOOP;
  const python = spawn('python3', ['-c', code], {
    env: { ...process.env, PYTHONPATH: process.env.PYJWT },
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const ended = once(python, 'close');
  stopLater(async () => {
    python.stdin.end();
    await ended;
  });
  const waiting = [];
  createInterface({ input: python.stdout }).on('line', (line) => waiting.shift()(JSON.parse(line)));
  return async (token) => {
    const answer = await new Promise((resolve) => {
      waiting.push(resolve);
      python.stdin.write(`${aheadFor(token, provider)} ${token}\n`);
    });
    if (answer.error) throw new Error(answer.error);
    return answer;
  };
}

/** Starts a server until the test ends, and resolves to its port. */
async function serve(handler) {
  const server = createServer(handler).listen(0, '127.0.0.1');
  await once(server, 'listening');
  stopLater(() => {
    server.closeAllConnections();
    return new Promise((resolve) => server.close(resolve));
  });
  return server.address().port;
}

/** A way to the mock on which time can be ahead: the gateway rotates keys by the provider's time. */
function providerOfTime() {
  const provider = { aheads: [0] };
  provider.pass = (ms) => provider.aheads.unshift(provider.aheads[0] + ms);
  provider.through = async (mock) => {
    const port = await serve((request, response) => {
      const { method, url, headers } = request;
      const onward = ask(new URL(url, mock), { method, headers: { ...headers, host: new URL(mock).host } });
      onward.on('response', (answer) => {
        const date = new Date(Date.now() + provider.aheads[0]).toUTCString();
        response.writeHead(answer.statusCode, { ...answer.headers, date });
        answer.pipe(response);
      });
      request.pipe(onward);
    });
    return `http://localhost:${port}`;
  };
  return provider;
}

/** An app that answers only to callers whom all verifiers know, and collects what it refused. */
async function startVerifyingApp() {
  const app = { verifiers: {}, refused: [], tokens: new Map(), served: 0 };
  app.port = await serve(async (request, response) => {
    const token = request.headers['x-auth-assertion'];
    try {
      for (const [name, verify] of Object.entries(app.verifiers)) {
        const claims = await verify(token);
        assert.equal(claims.sub, `twitch:${ADA}`, name);
        assert.equal(claims.sid, request.headers['x-auth-session'], name);
      }
      app.tokens.set(JSON.parse(Buffer.from(token.split('.')[0], 'base64url')).kid, token);
      app.served += 1;
      response.end('served');
    } catch (error) {
      app.refused.push(String(error));
      response.writeHead(401).end();
    }
  });
  return app;
}

/**
 * Requests of one user, by several clients at a time, until `stop`. `until(holds)` resolves after
 * the first answer at which the condition holds.
 */
function load(origin, cookie) {
  let [answered, going] = [() => {}, true];
  const client = async (path) => {
    while (going) {
      const answer = await fetch(`${origin}${path}`, { headers: { cookie } });
      await answer.text();
      answered();
    }
  };
  const clients = Array.from({ length: CLIENTS }, (_, n) => client(n === 0 ? '/fresh' : '/page'));
  const until = async (holds) => {
    while (!(await holds())) await new Promise((resolve) => { answered = resolve; });
  };
  const stop = () => {
    going = false;
    return Promise.all(clients);
  };
  return { until, stop };
}

const SETTINGS = (origin) => `
    [assertion]
    audience = "${origin}"
    [[routes]]
    path = "/fresh"
    assurance = "provider"
    max_age = "1s"`;

test('two libraries verify every assertion while the keys rotate under load', async (context) => {
  const app = await startVerifyingApp();
  const provider = providerOfTime();
  const site = await startOwnSite({ app: app.port, through: provider.through, settings: SETTINGS });
  app.verifiers.jose = await withJose(site.origin, provider);
  if (process.env.PYJWT) app.verifiers.pyjwt = await withPyJwt(site.origin, provider);
  else context.diagnostic('PyJWT is left out: the variable PYJWT names no directory that holds it');

  const page = await (await newDevice(await launchBrowser())).newPage();
  await signIn(page, site.origin, ADA);
  const cookies = await page.context().cookies(site.origin);
  const { until, stop } = load(site.origin, cookies.map(({ name, value }) => `${name}=${value}`).join('; '));
  const published = async () => (await (await fetch(`${site.origin}/auth/jwks.json`)).json()).keys.length;

  await until(() => app.tokens.size === 1);
  provider.pass(30 * DAY_MS);
  await until(async () => (await published()) === 2);
  // A day passes until the next key signs. By then jose may ask for the keys again.
  const asked = Date.now();
  await until(() => Date.now() - asked > COOLDOWN_MS);
  provider.pass(DAY_MS);
  await until(() => app.tokens.size === 2);
  provider.pass(DAY_MS);
  await until(async () => (await published()) === 1);
  const before = app.served;
  await until(() => app.served > before + CLIENTS);
  await stop();

  assert.deepEqual(app.refused, []);
  context.diagnostic(`${app.served} requests were verified`);
  const [first, second] = [...app.tokens.values()];
  const forged = {
    'another signature': second.slice(0, -8) + first.slice(-8),
    'the claims of another token': [second.split('.')[0], first.split('.')[1], second.split('.')[2]].join('.'),
    'no signature': `${Buffer.from('{"alg":"none"}').toString('base64url')}.${second.split('.')[1]}.`,
    'no token': '',
  };
  for (const [what, token] of Object.entries(forged)) {
    for (const [name, verify] of Object.entries(app.verifiers)) {
      await assert.rejects(verify(token), `${name}: ${what}`);
    }
  }
});
