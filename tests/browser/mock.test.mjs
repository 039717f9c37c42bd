// A person drives the mock from its own page, without a script.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { launchBrowser, newDevice, signIn, startDemo, stopAll, toConsentPage } from './harness.mjs';

const GRACE = '100000002';
const NILS = '100000003';

let demo;
let browser;
before(async () => {
  demo = await startDemo();
  browser = await launchBrowser();
});
after(stopAll);

async function freshPage(options) {
  return (await newDevice(browser, options)).newPage();
}

/** A new page of the mock. */
async function mockPage(options) {
  const page = await freshPage(options);
  await page.goto(demo.mock);
  return page;
}

/** Opens a folded form, by the words on it. */
function unfolded(section, words) {
  return section.locator('details', { has: section.page().locator('summary', { hasText: words }) }).first();
}

/** Fills in a form of the mock's page and sends it. */
async function fillIn(page, section, words, fields) {
  const form = unfolded(page.locator(section), words);
  await form.locator('summary').click();
  for (const [name, value] of Object.entries(fields)) {
    const field = form.locator(`[name=${name}]`);
    const kind = await field.evaluate((element) => element.type);
    if (kind === 'checkbox') await field.setChecked(value);
    else if (kind === 'select-one') await field.selectOption(value);
    else await field.fill(value);
  }
  await form.getByRole('button').click();
  await page.getByRole('status').waitFor();
}

describe('the page of the mock', () => {
  test('shows requests as they come, while it stays open', async () => {
    const mock = await mockPage();
    await mock.getByRole('button', { name: 'Clear' }).click();
    await mock.getByText('The list of requests is cleared.').waitFor();
    await signIn(await freshPage(), demo.app, GRACE);
    const requests = mock.locator('#requests-items');
    await requests.getByText('POST token').waitFor();
    await requests.locator('li', { hasText: 'GET validate' }).getByText('Grace_Plays').first().waitFor();
    await mock.locator('#users-items li', { hasText: 'Grace_Plays' }).getByText('connected with Demo app').waitFor();
  });

  test('makes a sign-in fail once, and the next one works', async () => {
    const mock = await mockPage();
    await mock.getByRole('button', { name: 'Code: 503 once' }).click();
    await mock.locator('#faults-items').getByText('1 more calls').waitFor();
    const page = await freshPage();
    await signIn(page, demo.app, GRACE);
    assert.equal((await page.request.get(`${demo.app}/auth/session`)).status(), 401);
    await mock.locator('#faults-items').getByText('No fault waits.').waitFor();
    // The mock remembers this browser's user, so it does not ask again.
    await page.goto(demo.app);
    await page.locator('#sign-in').click();
    await page.getByRole('heading', { name: /^Hello/ }).waitFor();
  });

  test('changes single fields of an answer', async () => {
    const mock = await mockPage();
    await fillIn(mock, '#faults', 'Add a fault', { endpoint: 'helix_users', set: 'data.0.display_name = Somebody else' });
    const page = await freshPage();
    await signIn(page, demo.app, GRACE);
    const { data } = await (await page.request.get(`${demo.app}/api/twitch/users`)).json();
    assert.equal(data[0].display_name, 'Somebody else');
  });

  test('disconnects a user, who is signed out everywhere', async () => {
    const page = await freshPage();
    await signIn(page, demo.app, NILS);
    const mock = await mockPage();
    const row = mock.locator('#users-items li', { hasText: 'Nils_Streams' });
    await row.getByRole('button', { name: 'Disconnect all apps' }).click();
    await mock.getByText('Nils_Streams is disconnected from 1 apps.').waitFor();
    await mock.locator('#deliveries-items').getByText('user.authorization.revoke').waitFor();
    await page.getByRole('link', { name: 'Sign in again' }).waitFor();
  });

  test('suspends a user, who cannot sign in until that ends', async () => {
    const mock = await mockPage();
    const row = () => mock.locator('#users-items li', { hasText: 'Nils_Streams' });
    await row().getByRole('button', { name: 'Suspend' }).click();
    await mock.getByText('Nils_Streams is suspended').waitFor();
    const page = await freshPage();
    await toConsentPage(page, demo.app);
    await page.getByRole('radio', { name: /Nils_Streams.*suspended/ }).check();
    await page.getByRole('button', { name: 'Authorize' }).click();
    await page.getByText('This account is suspended').waitFor();
    await row().getByRole('button', { name: 'End the suspension' }).click();
    await mock.getByText('Nils_Streams can sign in again.').waitFor();
    await signIn(page, demo.app, NILS);
  });

  test('shows the callback as a link, so that a person opens it late', async () => {
    const mock = await mockPage();
    await fillIn(mock, '#settings', 'Change the settings', { callback_by_hand: true });
    const page = await freshPage();
    await toConsentPage(page, demo.app);
    await page.getByRole('radio', { name: /Grace_Plays/ }).check();
    await page.getByRole('button', { name: 'Authorize' }).click();
    await page.getByRole('link', { name: 'Go back to the app' }).click();
    await page.getByRole('heading', { name: /^Hello/ }).waitFor();
    await fillIn(mock, '#settings', 'Change the settings', { callback_by_hand: false });
  });

  test('works without a script', async () => {
    const mock = await mockPage({ javaScriptEnabled: false });
    await fillIn(mock, '#users', 'Add a user', { id: '777', login: 'no_script', display_name: 'No Script' });
    await mock.getByText('No Script can sign in.').waitFor();
    await fillIn(mock, '#users-items li:has-text("No Script")', 'Rename', { display_name: 'Still No Script' });
    await mock.locator('#users-items').getByText('Still No Script').waitFor();
  });

  test('fits a phone, whatever the names are', async () => {
    const long = 'A_name_that_is_much_longer_than_anybody_would_expect_'.repeat(4);
    const mock = await mockPage({ viewport: { width: 390, height: 844 } });
    await fillIn(mock, '#users', 'Add a user', { id: '778', login: long.toLowerCase(), display_name: long });
    await fillIn(mock, '#apps', 'Register an app', { name: long, redirect_uris: `http://localhost:1/${long}` });
    const page = await freshPage({ viewport: { width: 390, height: 844 } });
    await toConsentPage(page, demo.app);
    await page.getByRole('radio', { name: new RegExp(`^${long}`) }).check();
    await assertFits(page);
    await page.getByRole('button', { name: 'Authorize' }).click();
    await page.goto(`${demo.mock}/settings/connections`);
    await assertFits(page);
    await page.goto(demo.mock);
    await page.locator('summary').evaluateAll((summaries) => summaries.forEach((summary) => summary.click()));
    await assertFits(page);
  });
});

async function assertFits(page) {
  const { scroll, width } = await page.evaluate(() => ({
    scroll: document.documentElement.scrollWidth,
    width: window.innerWidth,
  }));
  assert.ok(scroll <= width, `${page.url()} is ${scroll} px wide`);
}
