// The fragment is in the address of this page only.
const link = document.getElementById('onward');
const page = new URL(link.href);
page.hash ||= location.hash;
link.href = page;
if (link.dataset.when === 'now') location.replace(page);
