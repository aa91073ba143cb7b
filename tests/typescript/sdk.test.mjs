// The TypeScript SDK, unchanged, against our server.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import {
  Client,
  Connection,
  WorkflowExecutionAlreadyStartedError,
  WorkflowUpdateFailedError,
} from '@temporalio/client';
import { SearchAttributeType, defineSearchAttributeKey } from '@temporalio/common';
import { TestWorkflowEnvironment } from '@temporalio/testing';
import { DefaultLogger, NativeConnection, Runtime, Worker } from '@temporalio/worker';
import * as activities from './activities.mjs';
import { Server, binary } from './server.mjs';

Runtime.install({ logger: new DefaultLogger('ERROR') });

/** Node 20 has no Array.fromAsync. */
async function collect(iterable) {
  const all = [];
  for await (const each of iterable) all.push(each);
  return all;
}

const workflowsPath = fileURLToPath(new URL('./workflows.mjs', import.meta.url));

describe('the SDK against a server that is running', { timeout: 120_000 }, () => {
  let server, connection, native, client, worker, running;
  const taskQueue = `typescript-${randomUUID()}`;

  before(async () => {
    server = await Server.start();
    connection = await Connection.connect({ address: server.address });
    native = await NativeConnection.connect({ address: server.address });
    client = new Client({ connection });
    worker = await Worker.create({ connection: native, taskQueue, workflowsPath, activities });
    running = worker.run();
  });

  after(async () => {
    worker?.shutdown();
    await running;
    await native?.close();
    await connection?.close();
    if (server) assert.equal(await server.stop(), 0, server.log);
  });

  const start = (type, ...args) =>
    client.workflow.start(type, { taskQueue, workflowId: `${type}-${randomUUID()}`, args });

  const eventTypes = async (handle) => {
    const { events } = await handle.fetchHistory();
    assert.deepEqual(
      events.map((event) => Number(event.eventId)),
      events.map((_, index) => index + 1),
    );
    return events.map((event) => Object.keys(event).find((key) => key.endsWith('EventAttributes') && event[key]));
  };
  const count = (all, one) => all.filter((each) => each === `${one}EventAttributes`).length;

  test('activity', async () => {
    const handle = await start('greeting', 'Ada');
    assert.equal(await handle.result(), 'Hello, Ada!');
    assert.equal((await handle.describe()).status.name, 'COMPLETED');
    const types = await eventTypes(handle);
    for (const each of ['Scheduled', 'Started', 'Completed']) assert.equal(count(types, `activityTask${each}`), 1);
  });

  test('an activity is retried until it succeeds', async () => {
    assert.equal(await (await start('retried')).result(), 3);
  });

  test('a failure keeps its type, message and details', async () => {
    const handle = await start('refused');
    await assert.rejects(handle.result(), (error) => {
      const failure = error.cause.cause;
      assert.equal(failure.type, 'Refused');
      assert.equal(failure.message, 'not today');
      assert.deepEqual(failure.details, [{ until: 'tomorrow' }]);
      return true;
    });
    assert.equal((await handle.describe()).status.name, 'FAILED');
  });

  test('timer', async () => {
    const handle = await start('napping', 300);
    assert.ok((await handle.result()) >= 300);
    assert.equal(count(await eventTypes(handle), 'timerFired'), 1);
  });

  test('signal, query and update', async () => {
    const handle = await start('adding');
    await handle.signal('add', 2);
    assert.equal(await handle.executeUpdate('addAndGet', { args: [3] }), 5);
    assert.equal(await handle.query('total'), 5);
    const before = Date.now();
    await assert.rejects(handle.executeUpdate('addAndGet', { args: [-1] }), (error) => {
      assert.ok(error instanceof WorkflowUpdateFailedError, String(error));
      assert.equal(error.cause.message, 'only upwards');
      return true;
    });
    assert.ok(Date.now() - before < 8_000, 'a rejection waited for a timeout');
    const update = await handle.startUpdate('addAndGet', { args: [10], waitForStage: 'ACCEPTED' });
    assert.equal(await update.result(), 15);
    await handle.signal('finish');
    assert.equal(await handle.result(), 15);
    // Also when it is closed.
    assert.equal(await handle.query('total'), 15);
  });

  test('signal with start', async () => {
    const options = { taskQueue, workflowId: `adding-${randomUUID()}`, signal: 'add', signalArgs: [4] };
    const first = await client.workflow.signalWithStart('adding', options);
    const second = await client.workflow.signalWithStart('adding', options);
    assert.equal(first.signaledRunId, second.signaledRunId);
    await first.signal('finish');
    assert.equal(await first.result(), 8);
  });

  test('child workflow and external signal', async () => {
    const handle = await start('parent', 'Grace');
    assert.deepEqual(await handle.result(), { greeted: 'Hello, Grace!', total: 5 });
    const types = await eventTypes(handle);
    assert.equal(count(types, 'childWorkflowExecutionCompleted'), 2);
    assert.equal(count(types, 'externalWorkflowExecutionSignaled'), 3);
  });

  test('continue as new', async () => {
    const handle = await start('countdown', 2);
    const { runs, continuedFrom } = await handle.result();
    assert.equal(runs, 3);
    const { runId } = await handle.describe();
    assert.notEqual(runId, handle.firstExecutionRunId);
    assert.notEqual(continuedFrom, runId);
    const first = client.workflow.getHandle(handle.workflowId, handle.firstExecutionRunId);
    assert.equal((await first.describe()).status.name, 'CONTINUED_AS_NEW');
  });

  test('cancel', async () => {
    const handle = await start('stubborn');
    await sleep(200);
    await handle.cancel();
    await assert.rejects(handle.result(), (error) => error.cause?.name === 'CancelledFailure');
    assert.equal((await handle.describe()).status.name, 'CANCELLED');
    const types = await eventTypes(handle);
    assert.equal(count(types, 'timerCanceled'), 1);
    assert.equal(count(types, 'activityTaskCompleted'), 1);
  });

  test('an activity learns of its cancellation', async () => {
    assert.equal(await (await start('cancelsActivity')).result(), 'tidied up');
  });

  test('terminate', async () => {
    const handle = await start('adding');
    await handle.terminate('enough');
    await assert.rejects(handle.result(), (error) => error.cause?.name === 'TerminatedFailure');
    assert.equal((await handle.describe()).status.name, 'TERMINATED');
  });

  test('local activity', async () => {
    const handle = await start('locally', 'Alan');
    assert.deepEqual(await handle.result(), ['Hello, Alan!', 3]);
    const types = await eventTypes(handle);
    assert.equal(count(types, 'markerRecorded'), 2);
    assert.equal(count(types, 'activityTaskScheduled'), 0);
  });

  test('heartbeat', async () => {
    assert.equal(await (await start('heartbeating')).result(), 3);
  });

  test('one workflow id runs once', async () => {
    const handle = await start('adding');
    const again = client.workflow.start('adding', { taskQueue, workflowId: handle.workflowId });
    await assert.rejects(again, WorkflowExecutionAlreadyStartedError);
    await handle.terminate();
  });

  test('list and count', async () => {
    const type = 'napping';
    const handles = await Promise.all([1, 2, 3].map(() => start(type, 1)));
    await Promise.all(handles.map((handle) => handle.result()));
    const query = `WorkflowType = "${type}" AND TaskQueue = "${taskQueue}" AND ExecutionStatus = "Completed"`;
    let found = [];
    for (const deadline = Date.now() + 10_000; Date.now() < deadline; await sleep(100)) {
      found = await collect(client.workflow.list({ query }));
      if (handles.every((handle) => found.some((each) => each.workflowId === handle.workflowId))) break;
    }
    for (const handle of handles) assert.ok(found.some((each) => each.workflowId === handle.workflowId));
    assert.equal((await client.workflow.count(query)).count, found.length);
  });

  test('a worker that forgets everything goes on from the history', async () => {
    const queue = `typescript-${randomUUID()}`;
    const handle = await client.workflow.start('adding', { taskQueue: queue, workflowId: `adding-${randomUUID()}` });
    for (const amount of [1, 10]) {
      const brief = await Worker.create({ connection: native, taskQueue: queue, workflowsPath, activities });
      await brief.runUntil(() => handle.executeUpdate('addAndGet', { args: [amount] }));
    }
    const last = await Worker.create({ connection: native, taskQueue: queue, workflowsPath, activities });
    await last.runUntil(async () => {
      assert.equal(await handle.query('total'), 11);
      await handle.signal('finish');
      assert.equal(await handle.result(), 11);
    });
    await Worker.runReplayHistory({ workflowsPath }, await handle.fetchHistory(), handle.workflowId);
  });
});

test('the SDK starts our binary as its local server', { timeout: 60_000 }, async () => {
  const word = defineSearchAttributeKey('CustomWord', SearchAttributeType.KEYWORD);
  const environment = await TestWorkflowEnvironment.createLocal({
    server: {
      executable: { type: 'existing-path', path: binary() },
      namespace: 'from-the-sdk',
      searchAttributes: [word],
      log: { format: 'pretty', level: 'error' },
    },
  });
  try {
    assert.equal(environment.namespace, 'from-the-sdk');
    const taskQueue = randomUUID();
    const worker = await Worker.create({
      connection: environment.nativeConnection,
      namespace: environment.namespace,
      taskQueue,
      workflowsPath,
      activities,
    });
    await worker.runUntil(async () => {
      const options = { taskQueue, workflowId: randomUUID(), args: ['local'] };
      assert.equal(await environment.client.workflow.execute('greeting', options), 'Hello, local!');
      const handle = await environment.client.workflow.start('attributed', { ...options, workflowId: randomUUID() });
      let found = [];
      for (const deadline = Date.now() + 10_000; found.length === 0 && Date.now() < deadline; await sleep(100)) {
        found = await collect(environment.client.workflow.list({ query: 'CustomWord = "local"' }));
      }
      assert.deepEqual(found.map((each) => each.workflowId), [handle.workflowId]);
      await handle.terminate();
    });
  } finally {
    await environment.teardown();
  }
});
