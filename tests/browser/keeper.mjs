// Stops a program when the process that started this one ends.
//
//   node keeper.mjs DIRECTORY PROGRAM [ARGUMENT...]
//
// The starter holds the other end of standard input. When that end closes, because the starter
// asked for it or died, the program gets SIGTERM, and SIGKILL after STOP_LIMIT_MS. DIRECTORY is
// removed; "-" means none. Exits with 0 if the program stopped as asked, otherwise with 1 and the
// reason on standard error.

import { spawn } from 'node:child_process';
import { rmSync } from 'node:fs';

const STOP_LIMIT_MS = 10_000;

const [directory, program, ...programArgs] = process.argv.slice(2);
const child = spawn(program, programArgs, { stdio: ['ignore', 'inherit', 'inherit'] });
let asked = false;

function stop() {
  if (asked) return;
  asked = true;
  child.kill('SIGTERM');
  setTimeout(() => child.kill('SIGKILL'), STOP_LIMIT_MS).unref();
}

function finish(exitCode, reason) {
  if (directory !== '-') rmSync(directory, { recursive: true, force: true });
  // Standard error may be closed already, because its reader has died.
  if (reason) process.stderr.on('error', () => {}).write(`keeper: ${program}: ${reason}\n`);
  process.exitCode = exitCode;
  process.stdin.destroy();
}

child.on('error', (error) => finish(1, error.message));
child.on('exit', (code, signal) => {
  const how = signal ?? `exit code ${code}`;
  if (!asked) finish(1, `ended on its own with ${how}`);
  else if (code === 0 || signal === 'SIGTERM') finish(0);
  else finish(1, `was asked to stop and ended with ${how}`);
});

// An interrupt from the terminal reaches the whole process group. The program is still waited for.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, stop);
process.stdin.on('end', stop).on('error', stop).resume();
