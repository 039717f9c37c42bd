// Keeps the lists of an open page up to date. A list that somebody works in stays as it is.

const live = document.getElementById('live');
const inUse = (part) => part.contains(document.activeElement) || part.querySelector('details[open]');

async function refresh() {
  const answer = await fetch('/?live');
  const fresh = new DOMParser().parseFromString(await answer.text(), 'text/html');
  for (const part of document.querySelectorAll('[data-live]')) {
    const next = fresh.getElementById(part.id);
    if (next && next.innerHTML !== part.innerHTML && !inUse(part)) part.replaceChildren(...next.childNodes);
  }
}

async function run() {
  if (live.checked && !document.hidden) await refresh().catch(() => {});
  setTimeout(run, 1000);
}

run();
