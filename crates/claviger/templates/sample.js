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
