import {
  ActivityCancellationType,
  CancellationScope,
  condition,
  continueAsNew,
  defineQuery,
  defineSignal,
  defineUpdate,
  executeChild,
  getExternalWorkflowHandle,
  isCancellation,
  proxyActivities,
  proxyLocalActivities,
  setHandler,
  sleep,
  startChild,
  upsertSearchAttributes,
  workflowInfo,
} from '@temporalio/workflow';

const activities = proxyActivities({
  startToCloseTimeout: '10s',
  retry: { initialInterval: '50ms', backoffCoefficient: 1 },
});
const local = proxyLocalActivities({
  startToCloseTimeout: '10s',
  retry: { initialInterval: '50ms', backoffCoefficient: 1 },
});

export const addSignal = defineSignal('add');
export const finishSignal = defineSignal('finish');
export const totalQuery = defineQuery('total');
export const addUpdate = defineUpdate('addAndGet');

export async function greeting(name) {
  return await activities.greet(name);
}

export async function retried() {
  return await activities.thirdTimeLucky();
}

export async function refused() {
  await activities.refuse();
}

export async function napping(ms) {
  const before = Date.now();
  await sleep(ms);
  return Date.now() - before;
}

/** Adds what signals and updates bring, until told to finish. */
export async function adding() {
  let total = 0;
  let finished = false;
  setHandler(addSignal, (amount) => void (total += amount));
  setHandler(finishSignal, () => void (finished = true));
  setHandler(totalQuery, () => total);
  setHandler(
    addUpdate,
    async (amount) => {
      await sleep(20);
      total += amount;
      return total;
    },
    {
      validator: (amount) => {
        if (amount < 0) throw new Error('only upwards');
      },
    },
  );
  await condition(() => finished);
  return total;
}

export async function parent(name) {
  const greeted = await executeChild(greeting, { args: [name] });
  const child = await startChild(adding, { args: [] });
  await child.signal(addSignal, 2);
  const external = getExternalWorkflowHandle(child.workflowId);
  await external.signal(addSignal, 3);
  await external.signal(finishSignal);
  return { greeted, total: await child.result() };
}

export async function countdown(left, runs = 1) {
  if (left === 0) return { runs, continuedFrom: workflowInfo().continuedFromExecutionRunId };
  await continueAsNew(left - 1, runs + 1);
}

export async function stubborn() {
  try {
    await sleep('1 hour');
  } catch (error) {
    if (!isCancellation(error)) throw error;
    await CancellationScope.nonCancellable(() => activities.greet('cancelled'));
    throw error;
  }
}

export async function cancelsActivity() {
  const patient = proxyActivities({
    startToCloseTimeout: '20s',
    heartbeatTimeout: '2s',
    cancellationType: ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
  });
  const scope = new CancellationScope();
  const running = scope.run(() => patient.untilCancelled());
  await sleep(300);
  scope.cancel();
  return await running;
}

export async function locally(name) {
  return [await local.greet(name), await local.thirdTimeLucky()];
}

export async function heartbeating() {
  return await proxyActivities({
    startToCloseTimeout: '20s',
    heartbeatTimeout: '500ms',
    retry: { initialInterval: '50ms' },
  }).countWithHeartbeats();
}

export async function attributed(word) {
  upsertSearchAttributes({ CustomWord: [word] });
  await condition(() => false);
}
