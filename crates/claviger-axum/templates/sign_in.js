// Browsers tell no server the fragment of an address, and keep it over redirects to this page. The
// sign-in takes it along.
const link = document.getElementById('sign-in');
const login = new URL(link.href);
const sought = login.searchParams.get('return_to');
const fragment = location.hash.replaceAll('\\', '%5C');
if (fragment.slice(2048) !== '') {
  document.getElementById('lost').hidden = false;
} else if (fragment !== '' && !sought.includes('#')) {
  login.searchParams.set('return_to', sought + fragment);
  link.href = login;
}
