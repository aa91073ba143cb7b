import { Context, heartbeat, CancelledFailure } from '@temporalio/activity';
import { ApplicationFailure } from '@temporalio/common';

export async function greet(name) {
  return `Hello, ${name}!`;
}

/** Fails until its third attempt. */
export async function thirdTimeLucky() {
  const { attempt } = Context.current().info;
  if (attempt < 3) throw new Error(`attempt ${attempt} failed`);
  return attempt;
}

export async function refuse() {
  throw ApplicationFailure.create({
    message: 'not today',
    type: 'Refused',
    nonRetryable: true,
    details: [{ until: 'tomorrow' }],
  });
}

/** The first attempt goes silent after three heartbeats; the second one says what the first one reported. */
export async function countWithHeartbeats() {
  const { info, cancelled } = Context.current();
  if (info.attempt > 1) return info.heartbeatDetails;
  for (let count = 1; count <= 3; count++) {
    heartbeat(count);
    await Context.current().sleep(150);
  }
  await cancelled.catch(() => {});
  throw new Error('silent for too long');
}

export async function untilCancelled() {
  try {
    for (;;) {
      heartbeat();
      await Context.current().sleep(50);
    }
  } catch (error) {
    if (error instanceof CancelledFailure) return 'tidied up';
    throw error;
  }
}
