// The app behind the front proxies: it says what it received, streams, and echoes.

import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { stopLater } from './harness.mjs';

/** Starts the app, and resolves to its port. */
export async function startApp() {
  const streams = new Set();
  const sockets = new Set();
  const app = createServer((request, response) => {
    const { pathname } = new URL(request.url, 'http://app');
    if (pathname === '/events') return openStream(response, streams);
    if (pathname === '/upload') return countBytes(request, response);
    if (pathname === '/tick') streams.forEach((stream) => stream.write('data: second\n\n'));
    if (pathname === '/cookie') response.setHeader('set-cookie', 'of-the-app=1; Path=/');
    request.resume();
    answer(response, { url: request.url, headers: request.headers });
  });
  app.on('upgrade', (request, socket) => {
    sockets.add(socket.on('close', () => sockets.delete(socket)).on('error', () => {}));
    echo(request, socket);
  });
  await once(app.listen(0, '127.0.0.1'), 'listening');
  stopLater(async () => {
    sockets.forEach((socket) => socket.destroy());
    app.closeAllConnections();
    app.close();
    await once(app, 'close');
  });
  return app.address().port;
}

function answer(response, value) {
  response.setHeader('content-type', 'application/json');
  response.end(JSON.stringify(value));
}

/** One event at once. `/tick` sends the next one. */
function openStream(response, streams) {
  response.writeHead(200, { 'content-type': 'text/event-stream' });
  response.write('data: first\n\n');
  streams.add(response.on('close', () => streams.delete(response)));
}

function countBytes(request, response) {
  let bytes = 0;
  request.on('data', (chunk) => { bytes += chunk.length; });
  request.on('end', () => answer(response, { bytes }));
}

/** Accepts a WebSocket (RFC 6455) and returns each frame, which is short and in one piece. */
function echo(request, socket) {
  const key = `${request.headers['sec-websocket-key']}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`;
  socket.write([
    'HTTP/1.1 101 Switching Protocols',
    'Upgrade: websocket',
    'Connection: Upgrade',
    `Sec-WebSocket-Accept: ${createHash('sha1').update(key).digest('base64')}`,
    '\r\n',
  ].join('\r\n'));
  socket.on('data', (frame) => {
    const length = frame[1] & 0x7f;
    const mask = frame.subarray(2, 6);
    const text = frame.subarray(6, 6 + length).map((byte, place) => byte ^ mask[place % 4]);
    socket.write(Buffer.concat([Buffer.from([frame[0], length]), text]));
  });
}
