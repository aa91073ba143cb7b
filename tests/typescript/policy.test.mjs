// What agents see of refused commands, and what the markers of their local activities say.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Client, Connection } from '@temporalio/client';
import { NativeConnection, Worker } from '@temporalio/worker';
import * as activities from './activities.mjs';
import { Server } from './server.mjs';

const POLICIES = `
@id("commands")
permit(principal is Agent, action in Action::"command", resource in Namespace::"default");
@id("amounts")
forbid(principal, action == Action::"StartChild", resource == Workflow::"default/pay")
unless { context.numbers.hasTag("/0") };
@id("holy")
forbid(principal, action in [Action::"SignalExternal", Action::"CancelExternal"], resource == Session::"default/holy");
@id("no-greetings")
forbid(principal, action == Action::"RunLocalTool", resource == Tool::"default/greet");
`;
const workflowsPath = fileURLToPath(new URL('./policy_workflows.mjs', import.meta.url));

let directory, server, connection, native, client, worker, running;

before(async () => {
  directory = mkdtempSync(join(tmpdir(), 'steadfast-'));
  writeFileSync(join(directory, 'policies.cedar'), POLICIES);
  server = await Server.start('--policy', directory);
  connection = await Connection.connect({ address: server.address });
  native = await NativeConnection.connect({ address: server.address });
  client = new Client({ connection });
  worker = await Worker.create({ connection: native, taskQueue: 'agents', workflowsPath, activities });
  running = worker.run();
});

after(async () => {
  worker.shutdown();
  await running;
  await connection.close();
  await native.close();
  await server.stop();
  rmSync(directory, { recursive: true });
});

const start = (type, workflowId) => client.workflow.start(type, { taskQueue: 'agents', workflowId });

test('an agent can catch refusals, and its history is replayed', { timeout: 60_000 }, async () => {
  const handle = await start('agent', 'agent');
  const [refused, paid, signal, cancel] = await handle.result();
  assert.deepEqual(refused, [
    'ChildWorkflowFailure',
    'ApplicationFailure',
    'PolicyDenied',
    'refused by policy amounts',
    true,
  ]);
  assert.deepEqual(paid, ['done', 'paid 10']);
  for (const seen of [signal, cancel]) {
    assert.equal(seen[0], 'ApplicationFailure');
    assert.match(seen[2], /unknown/);
  }
  await Worker.runReplayHistory({ workflowsPath }, await handle.fetchHistory(), 'agent');
});

test('a forbidden local activity fails the workflow task', { timeout: 60_000 }, async () => {
  const handle = await start('localAgent', 'local');
  const failed = (event) => event.workflowTaskFailedEventAttributes;
  let found;
  for (const deadline = Date.now() + 15_000; !found && Date.now() < deadline; await sleep(100)) {
    found = (await handle.fetchHistory()).events.find(failed);
  }
  assert.match(failed(found).failure.message, /^PolicyDenied: the local activity greet is refused by policy no-greetings\./);
  await handle.terminate();
});
