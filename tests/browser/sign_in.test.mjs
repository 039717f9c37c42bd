// Sign-ins: one device, two devices, two tabs, a denial, the back button, a reload.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import {
  consent, lastingCookies, launchBrowser, newDevice, signIn, startDemo, stopAll, toConsentPage,
} from './harness.mjs';

const ADA = '100000001';
const GRACE = '100000002';

let demo;
before(async () => {
  demo = await startDemo();
});
after(stopAll);

/** A device in a browser of its own, which shares nothing with others, not even the process. */
async function freshPage(options) {
  const device = await newDevice(await launchBrowser(), options);
  return device.newPage();
}

/** The session of this browser's cookies. */
async function sessionInfo(page) {
  const answer = await page.request.get(`${demo.app}/auth/session`);
  return { status: answer.status(), body: await answer.json() };
}

describe('signing in', () => {
  test('a user sees the sign-in page, agrees at the provider, and reaches the requested page', async () => {
    const page = await freshPage();
    await signIn(page, `${demo.app}/?from=link`, ADA);
    assert.equal(page.url(), `${demo.app}/?from=link`);
    const { status, body } = await sessionInfo(page);
    assert.equal(status, 200);
    assert.equal(body.user, ADA);
    assert.match(body.device, /^Chrome/);
  });

  test('the app learns who the user is, and its script calls Twitch for them', async () => {
    const page = await freshPage();
    await signIn(page, demo.app, ADA);
    await page.getByRole('heading', { name: 'Hello, ada_builds' }).waitFor();
    const answer = page.waitForResponse(`${demo.app}/api/twitch/users`);
    await page.getByRole('link', { name: 'Ask Twitch about me' }).click();
    const { data } = await (await answer).json();
    assert.equal(data[0].id, ADA);
    await page.locator('#answer').getByText('Ada_Builds').waitFor();
  });

  test('a user who denies sees a message, is not signed in, and may try again', async () => {
    const page = await freshPage();
    await signIn(page, demo.app, ADA, { decision: 'deny' });
    await page.getByRole('heading', { name: 'You did not sign in' }).waitFor();
    assert.equal((await sessionInfo(page)).status, 401);
    await page.getByRole('link', { name: 'Sign in' }).click();
    await consent(page, demo.app, ADA);
    assert.equal((await sessionInfo(page)).status, 200);
  });

  test('two tabs may sign in at the same time', async () => {
    const device = await newDevice(await launchBrowser());
    const [first, second] = [await device.newPage(), await device.newPage()];
    await toConsentPage(first, `${demo.app}/?tab=first`);
    await toConsentPage(second, `${demo.app}/?tab=second`);
    await consent(first, demo.app, ADA);
    await consent(second, demo.app, ADA);
    assert.equal(first.url(), `${demo.app}/?tab=first`);
    assert.equal(second.url(), `${demo.app}/?tab=second`);
    assert.equal((await sessionInfo(first)).body.session, (await sessionInfo(second)).body.session);
  });

  test('a reloaded callback and the back button keep the session', async () => {
    const page = await freshPage();
    let callback;
    page.on('request', (request) => {
      if (request.url().startsWith(`${demo.app}/auth/callback`)) callback = request.url();
    });
    await signIn(page, demo.app, ADA);
    const before = (await sessionInfo(page)).body.session;

    await page.goto(callback);
    assert.equal(new URL(page.url()).pathname, '/', 'it leads on');
    assert.equal((await sessionInfo(page)).body.session, before);

    await page.goBack();
    await page.goBack();
    await page.goto(demo.app);
    assert.equal((await sessionInfo(page)).body.session, before);
  });

  test('a forged callback shows an error page', async () => {
    const page = await freshPage();
    const answer = await page.goto(`${demo.app}/auth/callback?code=x&state=y`);
    assert.equal(answer.status(), 400);
    await page.getByRole('heading', { name: 'This sign-in is no longer open' }).waitFor();
  });

  test('the browser holds one small cookie that no script can read', async () => {
    const page = await freshPage();
    await signIn(page, demo.app, ADA);
    const cookies = await lastingCookies(page, demo.app);
    assert.equal(cookies.length, 1, JSON.stringify(cookies.map(({ name }) => name)));
    const [cookie] = cookies;
    assert.equal(cookie.httpOnly, true);
    assert.equal(cookie.sameSite, 'Lax');
    assert.equal(cookie.path, '/');
    assert.ok(cookie.name.length + cookie.value.length < 300);
    assert.ok(!(await page.evaluate(() => document.cookie)).includes('claviger'));
  });
});

describe('devices', () => {
  test('two devices see each other, and one signs the other out', async () => {
    const desk = await freshPage();
    const phone = await freshPage({
      userAgent: 'Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Mobile/15E148 Safari/604.1',
      viewport: { width: 390, height: 844 },
    });
    await signIn(desk, demo.app, GRACE);
    await signIn(phone, demo.app, GRACE);

    await desk.goto(`${demo.app}/auth/devices`);
    await phone.goto(`${demo.app}/auth/devices`);
    assert.equal(await desk.locator('.device').count(), 2);
    assert.equal(await phone.locator('.device').count(), 2);
    await desk.getByRole('heading', { name: 'Safari 18 on iPhone' }).waitFor();

    await desk.getByRole('button', { name: /^Sign out Safari 18 on iPhone/ }).click();
    await desk.getByText('No other device is signed in').waitFor();

    await phone.getByRole('link', { name: 'Back to the site' }).click();
    await phone.getByRole('heading', { name: 'You were signed out' }).waitFor();
    await phone.getByText('You signed this device out from another one.').waitFor();
    assert.equal((await sessionInfo(phone)).body.reason, 'signed_out_from_another_device');
    assert.equal((await sessionInfo(desk)).status, 200);

    // The next sign-in asks the user at the provider again, although the provider knows this
    // browser.
    await phone.locator('#sign-in').click();
    await phone.locator('button[name=decision][value=authorize]').waitFor();
  });

  test('all others are signed out with one button, by keyboard, without a script', async () => {
    const user = '100000003';
    const others = [await freshPage(), await freshPage()];
    for (const page of others) await signIn(page, demo.app, user);
    const page = await freshPage({ javaScriptEnabled: false });
    await signIn(page, demo.app, user);
    await page.goto(`${demo.app}/auth/devices`);
    assert.equal(await page.locator('.device').count(), 3);
    await page.locator('summary', { hasText: 'Sign out all other devices' }).focus();
    await page.keyboard.press('Enter');
    for (const other of others) assert.equal((await sessionInfo(other)).status, 200, 'it asks first');
    await page.getByRole('button', { name: 'Yes, sign out 2 other devices' }).focus();
    await page.keyboard.press('Enter');
    await page.getByRole('status').getByText('2 devices are signed out.').waitFor();
    assert.match(await page.title(), /^2 devices are signed out/);
    await page.getByText('No other device is signed in').waitFor();
    for (const other of others) assert.equal((await sessionInfo(other)).status, 401);
  });

  test('a sign-out removes the cookie and shows a page that says so', async () => {
    const page = await freshPage();
    await signIn(page, demo.app, ADA);
    await page.goto(`${demo.app}/auth/devices`);
    await page.getByRole('button', { name: 'Sign out here' }).click();
    await page.getByRole('heading', { name: 'You are signed out' }).waitFor();
    assert.deepEqual(await lastingCookies(page, demo.app), []);
    await page.goto(demo.app);
    await page.getByRole('heading', { name: 'Please sign in' }).waitFor();
  });

  test('the devices page fits a phone and follows light and dark', async () => {
    const page = await freshPage({ colorScheme: 'dark', viewport: { width: 320, height: 640 } });
    await signIn(page, demo.app, ADA);
    await page.goto(`${demo.app}/auth/devices`);
    const { scroll, width, ground } = await page.evaluate(() => ({
      scroll: document.documentElement.scrollWidth,
      width: window.innerWidth,
      ground: getComputedStyle(document.body).backgroundColor,
    }));
    assert.ok(scroll <= width, 'nothing sticks out to the side');
    assert.equal(ground, 'rgb(20, 19, 24)');
  });
});

describe('another site', () => {
  test('cannot sign anybody out', async () => {
    const page = await freshPage();
    await signIn(page, demo.app, ADA);
    // 127.0.0.1 and localhost are different sites.
    await page.goto(demo.mock);
    await page.evaluate((action) => {
      const form = Object.assign(document.createElement('form'), { method: 'post', action });
      document.body.append(form);
      form.submit();
    }, `${demo.app}/auth/logout`);
    await page.waitForURL(`${demo.app}/auth/logout`);
    await page.getByText('Another site tried to do this').waitFor();
    await page.goto(demo.app);
    assert.equal((await sessionInfo(page)).status, 200);
  });
});
