// A user disconnects the app at the provider, with the app open in other tabs.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { consent, launchBrowser, newDevice, signIn, startDemo, stopAll } from './harness.mjs';

const ADA = '100000001';
const CLIENT = 'claviger0mock0demo0client0id00';
/** The longest time that a user may have to wait. */
const SECOND_MS = 1000;

let demo;
before(async () => {
  demo = await startDemo();
  await subscribed();
});
after(stopAll);

/** Waits until the provider has verified the webhook. */
async function subscribed() {
  for (;;) {
    const answer = await (await fetch(`${demo.mock}/mock/eventsub/subscriptions`)).text();
    if (answer.includes('"enabled"')) return;
  }
}

async function freshPage(options) {
  return (await newDevice(await launchBrowser(), options)).newPage();
}

/** Signs in, and waits until the page is connected. */
async function opened(page) {
  const listening = page.waitForResponse(`${demo.app}/events`);
  await signIn(page, demo.app, ADA);
  await listening;
}

describe('a disconnect at the provider', () => {
  test('reaches every open page within a second, and a new sign-in works', async () => {
    const pages = [await freshPage(), await freshPage()];
    for (const page of pages) await opened(page);
    const shown = pages.map((page) =>
      page.evaluate(
        () =>
          new Promise((resolve) => {
            const ended = document.getElementById('ended');
            new MutationObserver(() => ended.hidden || resolve(Date.now())).observe(ended, { attributes: true });
          }),
      ),
    );

    const connections = await pages[0].context().newPage();
    await connections.goto(`${demo.mock}/settings/connections`);
    const pressed = Date.now();
    await connections.locator(`#disconnect-${ADA}-${CLIENT}`).click();
    const waits = (await Promise.all(shown)).map((at) => at - pressed);
    console.log(`from the button at the provider to the open pages: ${waits.join(' and ')} ms`);
    for (const wait of waits) assert.ok(wait < SECOND_MS, `${wait} ms`);

    const [page] = pages;
    await page.getByRole('alert').getByText('access was taken away at Twitch').waitFor();
    await page.getByRole('link', { name: 'Sign in again' }).click();
    await consent(page, demo.app, ADA);
    await page.getByRole('heading', { name: 'Hello, ada_builds' }).waitFor();
    assert.equal(await page.locator('#ended').isVisible(), false);
    assert.equal((await page.request.get(`${demo.app}/auth/session`)).status(), 200);
  });

  test('redirects to the sign-in page without a script too', async () => {
    const page = await freshPage({ javaScriptEnabled: false });
    await signIn(page, demo.app, ADA);
    await fetch(`${demo.mock}/mock/users/${ADA}/disconnect`, { method: 'POST' });
    for (;;) {
      if ((await page.request.get(`${demo.app}/auth/session`)).status() === 401) break;
    }
    await page.reload();
    await page.getByRole('heading', { name: 'You were signed out' }).waitFor();
  });
});
