// The front proxies, with the examples of the documents. Only names, ports, certificate and time
// limits differ.
//
//   docs/front-proxy.md    in front of the gateway, which passes requests on to the app
//   docs/forward-auth.md   in front of the app, asking the gateway before each request

import { execFileSync } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { startProgram } from './harness.mjs';

const GUIDES = { 'front-proxy': 'front-proxy.md', 'forward-auth': 'forward-auth.md' };

/** An hour in the examples is as long as this in the tests. */
export const SILENCE_LIMIT_S = 3;

const FRONTS = {
  nginx: { title: 'nginx', write: nginx, program: 'nginx', args: (file) => ['-c', file, '-e', 'stderr'] },
  caddy: { title: 'Caddy', write: caddy, program: 'caddy', args: (file) => ['run', '--adapter', 'caddyfile', '--config', file] },
  haproxy: { title: 'HAProxy', write: haproxy, program: 'haproxy', args: (file) => ['-db', '-f', file] },
  apache: { title: 'Apache', write: apache, program: 'apache2', args: (file) => ['-D', 'FOREGROUND', '-f', file] },
  envoy: {
    title: 'Envoy',
    write: (example) => example,
    program: process.env.ENVOY,
    args: (file) => ['-c', file, '--concurrency', '1', '--disable-hot-restart', '--log-level', 'warning'],
  },
};

/** Why a front proxy cannot be tested here, or `false`. */
export function missing(front) {
  return !FRONTS[front].program && `there is no ${front} for this computer`;
}

/** Starts a front proxy as a guide says, once its port accepts connections. */
export async function startFront(front, guide, directory, ports) {
  const { title, write, program, args } = FRONTS[front];
  const file = join(directory, `${front}.conf${front === 'envoy' ? '.yaml' : ''}`);
  const certificate = await makeCertificate(directory);
  await writeFile(file, write(await example(title, guide, { ...ports, ...certificate }), directory));
  await startProgram(program, args(file), {
    port: ports.front,
    env: { XDG_DATA_HOME: directory, XDG_CONFIG_HOME: directory, HOME: directory },
  });
}

/** The example below the title, with what differs here. */
async function example(title, guide, { front, claviger, app, certificate, key }) {
  const text = await readFile(fileURLToPath(new URL(`../../docs/${GUIDES[guide]}`, import.meta.url)), 'utf8');
  const [, chapter] = text.split(`\n## ${title}\n`);
  const [, block] = chapter.split(/^```.*\n/m);
  return block
    .replace('listen 443', `listen 127.0.0.1:${front}`)
    .replace('bind :443', `bind 127.0.0.1:${front}`)
    .replace('*:443', `127.0.0.1:${front}`)
    .replace('0.0.0.0, port_value: 443', `127.0.0.1, port_value: ${front}`)
    .replace(/^app\.example \{/m, `https://localhost:${front} {\n    bind 127.0.0.1\n    tls ${certificate} ${key}`)
    .replaceAll('/etc/ssl/app.example.pem', certificate)
    .replaceAll('/etc/ssl/app.example.key', key)
    .replaceAll('app.example', 'localhost')
    .replaceAll(/127\.0\.0\.1(:|, port_value: )8080/g, `127.0.0.1$1${claviger}`)
    .replaceAll(/127\.0\.0\.1(:|, port_value: )3000/g, `127.0.0.1$1${app}`)
    .replaceAll(/\b1h\b/g, `${SILENCE_LIMIT_S}s`)
    .replaceAll(/\b3600(s?)\b/g, `${SILENCE_LIMIT_S}$1`);
}

/** Makes a certificate for localhost. Its file holds the key too, as HAProxy needs it. */
async function makeCertificate(directory) {
  const [key, certificate] = [join(directory, 'key.pem'), join(directory, 'certificate.pem')];
  execFileSync('openssl', [
    'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '1',
    '-subj', '/CN=localhost', '-keyout', key, '-out', certificate,
  ], { stdio: 'ignore' });
  await writeFile(certificate, await readFile(key), { flag: 'a' });
  return { certificate, key };
}

function nginx(example, directory) {
  const paths = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'];
  return `
    daemon off; pid ${directory}/nginx.pid; error_log stderr notice; user root;
    events {}
    http {
      access_log off;
      ${paths.map((name) => `${name}_temp_path ${directory}/${name};`).join(' ')}
      ${example}
    }`;
}

function caddy(example) {
  return `{\n  admin off\n  skip_install_trust\n  auto_https disable_redirects\n}\n${example}`;
}

function haproxy(example) {
  return `global\n    log stdout format raw local0\n    stats maxconn 1\n${example}`;
}

function apache(example, directory) {
  const modules = ['mpm_event', 'authz_core', 'reqtimeout', 'socache_shmcb', 'ssl', 'proxy', 'proxy_http', 'http2'];
  return `
    ServerName localhost
    User nobody
    Group nogroup
    DefaultRuntimeDir ${directory}
    PidFile ${directory}/apache.pid
    ErrorLog "|/bin/cat"
    Listen ${example.match(/<VirtualHost (.*)>/)[1]}
    ${modules.map((name) => `LoadModule ${name}_module /usr/lib/apache2/modules/mod_${name}.so`).join('\n    ')}
${example}`;
}
