// Two agents with one fault each, and one that is right.
import { condition, defineSignal, proxyActivities, setHandler, sleep, workflowInfo } from '@temporalio/workflow';

const tools = proxyActivities({ startToCloseTimeout: '5 minutes' });
const fewTimes = proxyActivities({ startToCloseTimeout: '5 minutes', retry: { maximumAttempts: 3 } });

export const approve = defineSignal('approve');

/** All that has to survive is in the workflow; each call may be made again. */
export async function plainAgent() {
  let approved = false;
  setHandler(approve, () => void (approved = true));
  const customer = await tools.lookUp('c-7');
  await condition(() => approved);
  const done = await tools.refund(customer.balance);
  await sleep('30 days');
  return await tools.sendMail(done);
}

/** Wants to send its mail only once, and leaves the call out where the history has it. */
export async function skipsOnReplay() {
  const customer = await tools.lookUp('c-7');
  if (!workflowInfo().unsafe.isReplaying) await tools.sendMail('your refund is on its way');
  return await tools.refund(customer.balance);
}

/** Keeps the decision in the worker's memory. */
export async function lostApproval() {
  const ticket = await fewTimes.askPerson('refund?');
  await sleep('1 hour');
  return await fewTimes.readDecision(ticket);
}
