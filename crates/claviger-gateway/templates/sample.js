// Shows the answer of the API on the page. Without it the link leads to the answer itself.
const link = document.getElementById('ask');
const answer = document.getElementById('answer');

link.addEventListener('click', async (event) => {
  event.preventDefault();
  answer.hidden = false;
  try {
    const response = await fetch(link.href, { headers: { accept: 'application/json' } });
    answer.textContent = JSON.stringify(await response.json(), null, 2);
  } catch (error) {
    answer.textContent = `No answer: ${error.message}`;
  }
});

// The gateway closes the streams of a session that ended. Then the page asks whether that is why, and says so.
const WHY = {
  disconnected_at_provider: `: this app’s access was taken away at ${document.body.dataset.provider}`,
  signed_out_from_another_device: ' from another device',
};
let events;

const listen = () => {
  events = new EventSource('/events');
  events.addEventListener('error', async () => {
    const session = await fetch('/auth/session', { headers: { accept: 'application/json' } }).catch(() => null);
    // Any other trouble passes, and the browser opens the stream again by itself.
    if (session?.status !== 401) return;
    events.close();
    const { reason } = await session.json();
    document.getElementById('why').textContent = WHY[reason] ?? '';
    document.getElementById('ended').hidden = false;
  });
};

listen();
addEventListener('pagehide', () => events.close());
addEventListener('pageshow', ({ persisted }) => persisted && listen());
