// `steadfast prove` on agents in TypeScript: it finds what is wrong, and does not accuse the right one.
import assert from 'node:assert/strict';
import { execFile, execFileSync } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { binary } from './server.mjs';

const here = fileURLToPath(new URL('.', import.meta.url));
const example = fileURLToPath(new URL('../../examples/prove/typescript', import.meta.url));

describe('agents are proved', { timeout: 300_000 }, () => {
  let folder;

  before(() => {
    // Beside the packages that it needs.
    folder = mkdtempSync(join(here, '.prove-'));
    cpSync(example, folder, { recursive: true, filter: (path) => !path.includes('node_modules') });
    execFileSync('node', ['bundle.mjs'], { cwd: folder });
  });

  after(() => rmSync(folder, { recursive: true, force: true }));

  const prove = (workflow, ...options) =>
    new Promise((resolve) => {
      const report = join(folder, `${workflow}.json`);
      const worker = `exec node ${join(folder, 'worker.mjs')}`;
      const flags = ['--worker', worker, '--workflow', workflow, '--task-queue', 'agents', '--json', report];
      execFile(binary(), ['prove', ...flags, ...options], (error, out, err) => {
        resolve({ code: error?.code ?? 0, said: out + err, report: () => JSON.parse(readFileSync(report, 'utf8')) });
      });
    });

  const failures = (report) =>
    new Set(
      [...report.undisturbed, ...report.tried.flatMap((tried) => tried.findings)]
        .filter((finding) => finding.severity === 'failure')
        .map((finding) => finding.kind),
    );

  test('the right one is resumable', async () => {
    const { code, said, report } = await prove('plainAgent', '--signal', 'approve', '--max-runs', '24');
    assert.equal(code, 0, said);
    assert.equal(report().verdict, 'resumable');
    assert.ok(report().tried.every((tried) => tried.reached), said);
  });

  for (const [workflow, expected] of [
    ['skipsOnReplay', 'non_determinism'],
    ['lostApproval', 'failed'],
  ]) {
    test(`${workflow} is not`, async () => {
      const { code, said, report } = await prove(workflow, '--max-runs', '16');
      assert.equal(code, 1, said);
      assert.ok(failures(report()).has(expected), said);
    });
  }
});
