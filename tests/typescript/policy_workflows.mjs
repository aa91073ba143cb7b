import {
  executeChild,
  getExternalWorkflowHandle,
  proxyLocalActivities,
  workflowInfo,
} from '@temporalio/workflow';

/** The failure that an agent sees, outermost first. */
async function told(what) {
  try {
    return ['done', await what()];
  } catch (error) {
    const seen = [];
    for (let cause = error; cause; cause = cause.cause) {
      seen.push(cause.name);
      if (cause.name === 'ApplicationFailure') seen.push(cause.type, cause.message, cause.nonRetryable);
    }
    return seen;
  }
}

export async function pay(amount) {
  return `paid ${amount}`;
}

/** Starts two children, of which one is refused, then signals and cancels what is not its own. */
export async function agent() {
  const child = (number, argument) =>
    executeChild('pay', { args: [argument], workflowId: `${workflowInfo().workflowId}-${number}` });
  const other = getExternalWorkflowHandle('holy');
  return [
    await told(() => child(1, 'a lot')),
    await told(() => child(2, 10)),
    await told(() => other.signal('stop')),
    await told(() => other.cancel()),
  ];
}

export async function localAgent() {
  return await proxyLocalActivities({ startToCloseTimeout: '10s' }).greet('you');
}
