// Makes the screenshots of the devices page in the README: `cargo xtask screenshot`.

import { launchBrowser, newDevice, screenshot, screenshotDevice, signIn, startDemo, stopAll } from './harness.mjs';

const USER = '100000001';
const OTHERS = [
  'Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Mobile/15E148 Safari/604.1',
  'Mozilla/5.0 (X11; Linux x86_64; rv:143.0) Gecko/20100101 Firefox/143.0',
];
const THIS = 'Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36';

try {
  const demo = await startDemo();
  const browser = await launchBrowser();
  for (const userAgent of OTHERS) {
    const page = await (await newDevice(browser, { userAgent })).newPage();
    await signIn(page, demo.app, USER);
  }
  for (const scheme of ['light', 'dark']) {
    const page = await (await screenshotDevice(browser, scheme, { userAgent: THIS })).newPage();
    await signIn(page, demo.app, USER);
    await page.goto(`${demo.app}/auth/devices`);
    await screenshot(page, `devices-${scheme}`);
    await page.getByRole('button', { name: 'Sign out here' }).click();
    await page.getByRole('heading', { name: 'You are signed out' }).waitFor();
  }
} finally {
  await stopAll();
}
