// steadfast prove --worker "node worker.mjs" --task-queue agents --workflow plainAgent --signal approve
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { DefaultLogger, NativeConnection, Runtime, Worker } from '@temporalio/worker';
import * as activities from './activities.mjs';

Runtime.install({ logger: new DefaultLogger('ERROR') });

const file = (name) => fileURLToPath(new URL(name, import.meta.url));
const bundle = file('./bundle.js');
const workflows = existsSync(bundle)
  ? { workflowBundle: { codePath: bundle } }
  : { workflowsPath: file('./workflows.mjs') };

const address = process.env.TEMPORAL_ADDRESS ?? '127.0.0.1:7233';
const connection = await NativeConnection.connect({ address });
const worker = await Worker.create({ connection, taskQueue: 'agents', activities, ...workflows });
await worker.run();
