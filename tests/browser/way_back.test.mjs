// The way through the sign-in and back: deep links, fragments, forms, the Back button, failures.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import {
  consent, launchBrowser, newDevice, signIn, stopAll, toConsentPage,
} from './harness.mjs';
import { startOwnSite } from './own_site.mjs';

const ADA = '100000001';
const GRACE = '100000002';

let site;
let browser;
before(async () => {
  [site, browser] = await Promise.all([startOwnSite(), launchBrowser()]);
});
after(stopAll);

async function freshPage(options) {
  return (await newDevice(browser, options)).newPage();
}

/** Ends the session of this page's browser from outside, so that it learns nothing of it. */
async function signOutElsewhere(page, user) {
  const other = await freshPage();
  await signIn(other, site.origin, user);
  await other.goto(`${site.origin}/auth/devices`);
  await other.locator('summary').click();
  await other.getByRole('button', { name: /^Yes, sign out/ }).click();
  await other.getByText('No other device is signed in').waitFor();
  assert.equal((await page.request.get(`${site.origin}/auth/session`)).status(), 401);
}

/** A path with a query, of this many octets. */
function deep(octets) {
  const start = '/search?q=%3Ca%3E&filter=';
  return start + 'x'.repeat(octets - start.length);
}

describe('the destination', () => {
  for (const [octets, javaScriptEnabled] of [[1500, true], [8000, true], [8000, false]]) {
    test(`of a link of ${octets} octets is reached, ${javaScriptEnabled ? 'with' : 'without'} a script`, async () => {
      const page = await freshPage({ javaScriptEnabled });
      const link = `${site.origin}${deep(octets)}`;
      await signIn(page, link, ADA);
      await page.waitForURL(link);
      await page.getByRole('heading', { name: 'Page' }).waitFor();
    });
  }

  test('of a link that is far too long is lost, and a page says so', async () => {
    const page = await freshPage();
    await signIn(page, `${site.origin}${deep(9000)}`, ADA);
    await page.getByRole('heading', { name: 'Open your link once more' }).waitFor();
    await page.goto(`${site.origin}${deep(9000)}`);
    await page.getByRole('heading', { name: 'Page' }).waitFor();
  });

  test('keeps a backslash, other letters and its fragment', async () => {
    for (const path of ['/käse?path=c:\\d', '/a?b=c#ü\\"<>', `${deep(3000)}#part-2`]) {
      const page = await freshPage();
      await signIn(page, `${site.origin}${path}`, ADA);
      await page.getByRole('heading', { name: 'Page' }).waitFor();
      const [got, wanted] = [new URL(page.url()), new URL(`${site.origin}${path}`)];
      const plain = (text) => text.replaceAll('\\', '%5C');
      assert.deepEqual(
        [got.pathname, got.search, plain(got.hash)],
        [wanted.pathname, plain(wanted.search), plain(wanted.hash)],
      );
      await page.context().close();
    }
  });

  test('a fragment that is too long is lost, and the sign-in page says so', async () => {
    const page = await freshPage();
    await page.goto(`${site.origin}/a#${'x'.repeat(3000)}`);
    await page.getByText('is too long to be kept').waitFor();
    await page.locator('#sign-in').click();
    await consent(page, site.origin, ADA);
    assert.equal(page.url(), `${site.origin}/a`);
  });

  test('keeps its fragment, which the provider does not see', async () => {
    for (const path of ['/a#secret', '/auth/sign-in?return_to=%2Fa%23secret#more', '/auth/login?return_to=%2Fa%23secret#more']) {
      const page = await freshPage();
      await page.goto(`${site.origin}${path}`);
      const signInLink = page.locator('#sign-in');
      const atProvider = page.locator('button[name=decision][value=authorize]');
      await signInLink.or(atProvider).waitFor();
      if (await signInLink.count()) await signInLink.click();
      await atProvider.waitFor();
      assert.equal(new URL(page.url()).hash, '', page.url());
      await consent(page, site.origin, ADA);
      assert.equal(page.url(), `${site.origin}/a#secret`);
      await page.context().close();
    }
  });

  test('survives a denial, whose page shows neither code nor state', async () => {
    const page = await freshPage();
    await signIn(page, `${site.origin}/inbox?page=2#top`, ADA, { decision: 'deny' });
    await page.getByRole('heading', { name: 'You did not sign in' }).waitFor();
    assert.ok(!/code=|state=/.test(page.url()), page.url());
    await page.reload();
    await page.getByRole('heading', { name: 'You did not sign in' }).waitFor();
    await page.getByRole('link', { name: 'Sign in' }).click();
    await consent(page, site.origin, ADA);
    assert.equal(page.url(), `${site.origin}/inbox?page=2#top`);
  });

  test('a forged callback leads to an address without code and state', async () => {
    const page = await freshPage();
    const answer = await page.goto(`${site.origin}/auth/callback?code=secret1&state=secret2`);
    assert.equal(answer.status(), 400);
    await page.getByRole('heading', { name: 'This sign-in is no longer open' }).waitFor();
    assert.ok(!page.url().includes('secret'), page.url());
  });
});

describe('the Back button', () => {
  test('after a sign-in never leads anywhere but to the destination', async () => {
    const page = await freshPage();
    await page.goto('about:blank');
    const link = `${site.origin}/inbox?page=3`;
    await signIn(page, link, ADA);
    const seen = [];
    while (page.url() !== 'about:blank' && seen.length < 6) {
      await page.goBack();
      seen.push(page.url());
    }
    const ours = seen.filter((url) => url.startsWith(site.origin));
    assert.ok(ours.length > 0 && ours.every((url) => url === link), seen.join('\n'));
  });

  test('after a sign-out shows no page of the user who left', async () => {
    const page = await freshPage();
    await signIn(page, `${site.origin}/inbox`, ADA);
    await page.goto(`${site.origin}/auth/devices`);
    await page.getByRole('button', { name: 'Sign out here' }).click();
    await page.getByRole('heading', { name: 'You are signed out' }).waitFor();
    await page.goBack();
    assert.equal(await page.locator('.device').count(), 0);
    await page.goBack();
    assert.equal(await page.getByRole('heading', { name: 'Page' }).count(), 0);
    await page.locator('#sign-in').waitFor();
  });
});

describe('a form that is posted after the session ended', () => {
  for (const keepsPages of [false, true]) {
    test(`is said to be unsent, and Back shows it filled in, ${keepsPages ? 'with' : 'without'} a back/forward cache`, async () => {
      const own = keepsPages ? await launchBrowser({ ignoreDefaultArgs: ['--disable-back-forward-cache'] }) : browser;
      const page = await (await newDevice(own)).newPage();
      await signIn(page, `${site.origin}/form`, GRACE);
      await page.locator('[name=title]').fill('A title');
      await page.locator('[name=text]').fill('Much\ntext <b>');
      await page.locator('[name=word]').fill('hidden');
      await signOutElsewhere(page, GRACE);
      const before = site.sent.length;
      await page.getByRole('button', { name: 'Send' }).click();
      await page.getByText('Your form was not sent.').waitFor();
      assert.equal(site.sent.length, before);
      const shown = await page.content();
      for (const typed of ['A title', 'Much', 'hidden']) assert.ok(!shown.includes(typed), typed);

      const [tab] = await Promise.all([
        page.context().waitForEvent('page'),
        page.getByRole('link', { name: 'Sign in' }).click(),
      ]);
      await tab.getByText('You signed this device out from another one.').waitFor();
      await tab.locator('#sign-in').click();
      await consent(tab, site.origin, GRACE);

      // A page that was kept whole does not load again.
      await page.goBack({ waitUntil: 'commit' });
      assert.equal(await page.locator('[name=title]').inputValue(), 'A title');
      assert.equal(await page.locator('[name=text]').inputValue(), 'Much\ntext <b>');
      assert.equal(await page.locator('[name=word]').inputValue(), keepsPages ? 'hidden' : '');
      await page.getByRole('button', { name: 'Send' }).click();
      await page.waitForURL(`${site.origin}/send`);
      assert.match(site.sent.at(-1), /^title=A\+title&text=Much/);
    });
  }
});

describe('what browsers do besides', () => {
  test('a service worker that passes navigations on leads to the sign-in', async () => {
    const page = await freshPage();
    await signIn(page, `${site.origin}/with-worker`, GRACE);
    await page.waitForFunction(() => document.title === 'controlled');
    await signOutElsewhere(page, GRACE);
    await page.goto(`${site.origin}/inbox?page=4`);
    await page.getByRole('heading', { name: 'You were signed out' }).waitFor();
    await page.locator('#sign-in').click();
    await consent(page, site.origin, GRACE);
    assert.equal(page.url(), `${site.origin}/inbox?page=4`);
  });

  test('a frame shows the sign-in page, whose button leads the whole window', async () => {
    const page = await freshPage();
    await signIn(page, `${site.origin}/with-frame`, ADA);
    await page.frameLocator('iframe').getByRole('heading', { name: 'Page' }).waitFor();
    await page.context().clearCookies();
    await page.evaluate(() => { document.querySelector('iframe').src = '/framed?again'; });
    await page.frameLocator('iframe').locator('#sign-in').click();
    await consent(page, site.origin, ADA);
    assert.equal(page.url(), `${site.origin}/framed?again`);
  });

  test('20 KiB of other cookies are no obstacle', async () => {
    const page = await freshPage();
    const cookies = Array.from({ length: 5 }, (_, at) => ({
      name: `app-${at}`, value: 'x'.repeat(4000), domain: 'localhost', path: '/',
    }));
    await page.context().addCookies(cookies);
    await signIn(page, `${site.origin}/inbox`, ADA);
    assert.equal(page.url(), `${site.origin}/inbox`);
  });

  test('a wrong host name leads to the right one', async () => {
    const page = await freshPage();
    const { port } = new URL(site.origin);
    await page.goto(`http://127.0.0.1:${port}/inbox?page=5#top`);
    await page.locator('#sign-in').click();
    await consent(page, site.origin, ADA);
    assert.equal(page.url(), `${site.origin}/inbox?page=5#top`);
  });

  test('a slow callback that arrives twice signs in once', async () => {
    const page = await freshPage();
    let callback;
    page.on('request', (request) => {
      if (request.url().startsWith(`${site.origin}/auth/callback`)) callback ??= request.url();
    });
    await toConsentPage(page, `${site.origin}/inbox?page=6`);
    await page.locator(`input[name=user][value="${ADA}"]`).check();
    const fault = { endpoint: 'token', kind: 'delay', delay_ms: 700, calls: 1 };
    const added = await fetch(`${site.mock}/mock/faults`, {
      method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(fault),
    });
    assert.ok(added.ok, await added.text());
    const asked = page.waitForRequest((request) => request.url().startsWith(`${site.origin}/auth/callback`));
    await page.locator('button[name=decision][value=authorize]').click({ noWaitAfter: true });
    await asked;
    const second = await page.context().newPage();
    await Promise.all([second.goto(callback), page.waitForURL(`${site.origin}/inbox?page=6`)]);
    assert.equal(second.url(), `${site.origin}/inbox?page=6`);
    await second.goto(`${site.origin}/auth/devices`);
    assert.equal((await second.request.get(`${site.origin}/auth/session`)).status(), 200);
  });
});
