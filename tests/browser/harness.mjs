// Shared by the browser tests: the demo, Chromium, devices, and a user who signs in.
//
// `cargo xtask browser` sets the two variables read here:
//   CLAVIGER_BIN  the built gateway
//   CHROMIUM      the browser
//
// `stopAll` stops everything that is started here. It also ends when the test process ends: the
// demo through keeper.mjs, Chromium because its control pipe closes. Nothing sleeps: each wait is
// for an event, and the limits below turn an endless wait into an error.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';

const READY_LIMIT_MS = 30_000;
const PAGE_LIMIT_MS = 15_000;
const LOG_LIMIT_LINES = 5_000;
/** How often a port is tried that does not accept connections yet. */
const PORT_TRY_MS = 20;

const KEEPER = fileURLToPath(new URL('keeper.mjs', import.meta.url));

const CHROMIUM_ARGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--no-proxy-server',
  // A page that requests anything outside this computer gets an error at once.
  '--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE localhost , EXCLUDE 127.0.0.1',
];

// Newest last. Each entry stops one thing.
const started = [];

/** The value of an environment variable, or an error that says how to get it. */
function required(name) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set: run the browser tests with \`cargo xtask browser\``);
  return value;
}

/**
 * Starts `claviger demo` on free ports with data of its own. Resolves, once it answers, to `{ app,
 * mock, log, stop }`: two addresses, the lines it has printed so far, and a way to stop it before
 * `stopAll`.
 *
 * `data`: a directory to keep instead of a temporary one; `args`: further arguments; `env`: further
 * variables.
 */
export async function startDemo({ data, args = [], env = {} } = {}) {
  const directory = data ?? (await mkdtemp(join(tmpdir(), 'claviger-browser-')));
  return startProgram(required('CLAVIGER_BIN'), ['demo', '--port', '0', '--json', '--data', directory, ...args], {
    keys: ['app', 'mock'],
    remove: data ? undefined : directory,
    env,
  });
}

/**
 * Starts a program. It is ready when it prints a line of JSON with all of `keys` on standard
 * output, or a line that matches `ready` anywhere, or when `port` accepts connections, whichever
 * is given. Resolves to that object, or the match as `ready`, with `log` and `stop` added. The
 * directory `remove` goes when the program has ended.
 */
export async function startProgram(program, args, { keys, ready, port, remove = '-', env = {} }) {
  const keeper = spawn(process.execPath, [KEEPER, remove, program, ...args], { env: { ...process.env, ...env } });
  const closed = once(keeper, 'close');
  const log = [];
  const failure = (what) => new Error([`${program} ${args.join(' ')}: ${what}`, ...log].join('\n'));

  let stopping;
  const stop = () => {
    stopping ??= (async () => {
      keeper.stdin.on('error', () => {}).end();
      const [exitCode] = await closed;
      if (exitCode !== 0) throw failure('did not end well');
    })();
    return stopping;
  };
  started.push(stop);

  try {
    const answer = firstAnswer(keeper, answersWith(keys, ready), log);
    return { ...(await (port ? Promise.race([opened(port, keeper), answer]) : answer)), log, stop };
  } catch (error) {
    await stop().catch(() => {});
    started.splice(started.indexOf(stop), 1);
    throw failure(error.message);
  }
}

/**
 * Reads a line that a program printed, and returns its content if it says that the program is
 * ready.
 */
function answersWith(keys, ready) {
  return (line) => {
    if (ready) return line.match(ready) && { ready: line.match(ready) };
    const answer = parsed(line);
    return keys?.every((key) => key in answer) && answer;
  };
}

/** Resolves once a port accepts connections, unless the process that shall open it has ended. */
async function opened(port, child) {
  while (child.exitCode === null) {
    const socket = connect(port, '127.0.0.1');
    const accepted = await once(socket, 'connect').then(() => true, () => false);
    socket.destroy();
    if (accepted) return {};
    await new Promise((resolve) => setTimeout(resolve, PORT_TRY_MS));
  }
  return new Promise(() => {});
}

/**
 * Collects what a process prints into `log`, and resolves to the first line in which `read` finds
 * an answer.
 */
function firstAnswer(child, read, log) {
  const keep = (line) => {
    log.push(line);
    if (log.length > LOG_LIMIT_LINES) log.shift();
  };
  return new Promise((resolve, reject) => {
    const deadline = setTimeout(
      () => reject(new Error(`was not ready within ${READY_LIMIT_MS} ms`)),
      READY_LIMIT_MS,
    );
    for (const input of [child.stdout, child.stderr]) {
      createInterface({ input }).on('line', (line) => {
        keep(line);
        const answer = read(line);
        if (!answer) return;
        clearTimeout(deadline);
        resolve(answer);
      });
    }
    child.once('close', () => {
      clearTimeout(deadline);
      reject(new Error('ended before it was ready'));
    });
  });
}

/** The object in a line of JSON; an empty one for any other line. */
function parsed(line) {
  if (!line.startsWith('{')) return {};
  try {
    return JSON.parse(line);
  } catch {
    return {};
  }
}

/** A port that is free at the moment. */
export async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

/** The gateway under test. */
export function gateway() {
  return required('CLAVIGER_BIN');
}

/** Registers `stop`, so that `stopAll` calls it. */
export function stopLater(stop) {
  started.push(stop);
}

/** Starts a headless Chromium with an empty profile. `options` are playwright's. */
export async function launchBrowser(options = {}) {
  const browser = await chromium.launch({
    executablePath: required('CHROMIUM'),
    args: CHROMIUM_ARGS,
    headless: true,
    ...options,
  });
  started.push(() => browser.close());
  return browser;
}

/**
 * A device of its own: a browser context, which shares no cookie and no storage with any other.
 * `options` are playwright's, for example `userAgent`, `colorScheme` or `javaScriptEnabled`.
 */
export async function newDevice(browser, options = {}) {
  const device = await browser.newContext({ locale: 'en-GB', timezoneId: 'UTC', ...options });
  device.setDefaultTimeout(PAGE_LIMIT_MS);
  return device;
}

/** Goes to `app`, is shown the sign-in page, and goes on to the mock's consent page. */
export async function toConsentPage(page, app) {
  await page.goto(app);
  await page.locator('#sign-in').click();
  await page.locator('button[name=decision][value=authorize]').waitFor();
}

/**
 * Goes to `app`, is led to the mock's consent page, answers as `user` and waits until the app's
 * page has loaded. `user` is an id or a name on that page; `decision` is "authorize" or "deny".
 */
export async function signIn(page, app, user, options = {}) {
  await toConsentPage(page, app);
  await consent(page, app, user, options);
}

/** Answers the mock's consent page that `page` shows. */
export async function consent(page, app, user, { decision = 'authorize' } = {}) {
  const byId = page.locator(`input[name=user][value=${JSON.stringify(user)}]`);
  await byId.or(page.getByRole('radio', { name: user, exact: true })).check();
  const { origin } = new URL(app);
  await Promise.all([
    page.waitForURL((url) => url.origin === origin),
    page.locator(`button[name=decision][value=${decision}]`).click(),
  ]);
}

/**
 * The gateway's cookies for this address that last. The cookie of a sign-in lives on for a minute,
 * since its callback may be delivered again.
 */
export async function lastingCookies(page, address) {
  const cookies = await page.context().cookies(address);
  return cookies.filter(({ name }) => /^(__Host-)?claviger/.test(name) && !name.includes('-login-'));
}

/** A device that looks the same on every computer; `colorScheme` is "light" or "dark". */
export function screenshotDevice(browser, colorScheme, options = {}) {
  const viewport = { width: 800, height: 640 };
  return newDevice(browser, { colorScheme, viewport, deviceScaleFactor: 2, reducedMotion: 'reduce', ...options });
}

/** Writes a screenshot of the whole `page` to `docs/<name>.png`. */
export async function screenshot(page, name) {
  const path = fileURLToPath(new URL(`../../docs/${name}.png`, import.meta.url));
  await page.screenshot({ path, fullPage: true, animations: 'disabled', caret: 'hide' });
}

/**
 * Stops everything that was started here, the newest first; fails if anything did not stop
 * cleanly.
 */
export async function stopAll() {
  const failures = [];
  while (started.length > 0) {
    await started.pop()().catch((error) => failures.push(error));
  }
  if (failures.length > 0) throw new AggregateError(failures, failures.map((error) => error.message).join('\n'));
}
