// Tests of the harness itself.

import assert from 'node:assert/strict';
import { mkdtemp, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { launchBrowser, newDevice, startProgram, stopAll } from './harness.mjs';

after(stopAll);

/** A program for `startProgram`. It reports that it is ready and runs until stopped. */
const PATIENT = `console.log('starting'); console.log('{"app":"here"}'); setInterval(() => {}, 1e6);`;

test('Chromium opens a page and shows its title', async () => {
  const device = await newDevice(await launchBrowser());
  const page = await device.newPage();
  await page.goto('data:text/html,<title>Hello from a data URL</title>');
  assert.equal(await page.title(), 'Hello from a data URL');
});

test('two devices share no cookie', async () => {
  const browser = await launchBrowser();
  const [first, second] = [await newDevice(browser), await newDevice(browser)];
  await first.addCookies([{ name: 'session', value: '1', url: 'http://localhost' }]);
  assert.equal((await first.cookies()).length, 1);
  assert.equal((await second.cookies()).length, 0);
});

test('a page cannot reach an address outside this computer', async () => {
  const page = await (await newDevice(await launchBrowser())).newPage();
  await assert.rejects(page.goto('http://example.com/'), /ERR_NAME_NOT_RESOLVED/);
});

test('a program is ready when it prints its line of JSON, and its directory is removed when it stops', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'claviger-harness-'));
  const program = await startProgram(process.execPath, ['-e', PATIENT], { keys: ['app'], remove: directory });
  assert.equal(program.app, 'here');
  assert.deepEqual(program.log, ['starting', '{"app":"here"}']);
  await program.stop();
  await assert.rejects(stat(directory), { code: 'ENOENT' });
});

test('a program that ends before it is ready fails with its output', async () => {
  const broken = startProgram(process.execPath, ['-e', `console.error('no such setting'); process.exit(3)`], {
    keys: ['app'],
  });
  await assert.rejects(broken, /ended before it was ready[^]*no such setting[^]*exit code 3/);
});
