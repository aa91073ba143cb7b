// packages/typescript, in a worker of the SDK, and with an issuer on loopback.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { inspect } from 'node:util';
import { Client, Connection } from '@temporalio/client';
import { MockActivityEnvironment } from '@temporalio/testing';
import { NativeConnection, Worker } from '@temporalio/worker';
import { Server } from './server.mjs';
import * as steadfast from '../../packages/typescript/index.js';

const base64 = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
const jwt = (claims) => `${base64({ alg: 'ES256' })}.${base64({ exp: 4e9, ...claims })}.c2lnbmF0dXJl`;
const payload = (value, encoding = 'json/plain') => ({
  metadata: { encoding: Buffer.from(encoding) },
  data: Buffer.from(JSON.stringify(value)),
});

/** Runs an activity as a worker does whose tasks have these headers. */
function run(activity, headers) {
  const withHeaders = () => ({ inbound: { execute: (input, next) => next({ ...input, headers }) } });
  const { interceptors } = new steadfast.CredentialPlugin().configureWorker({});
  const environment = new MockActivityEnvironment({}, { interceptors: [withHeaders, ...interceptors.activity] });
  return environment.run(activity);
}

describe('activities', { timeout: 30_000 }, () => {
  test('have their credential and key', async () => {
    const token = jwt({ sub: 'default/RefundAgent', steadfast: { tool: 'refund' } });
    const headers = { 'steadfast-credential': payload(token), 'steadfast-idempotency-key': payload('k-1') };
    const [credential, key] = await run(async () => [steadfast.credential(), steadfast.idempotencyKey()], headers);
    assert.equal(credential.token, token);
    assert.equal(key, 'k-1');
    assert.equal(credential.claims.steadfast.tool, 'refund');
    assert.deepEqual(credential.authorizationHeader, { Authorization: `Bearer ${token}` });
    assert.equal(credential.isExpired, false);
    assert.equal(credential.expires.getTime(), 4e12);
    for (const shown of [inspect(credential, { showHidden: true }), JSON.stringify(credential), `${credential}`]) {
      assert.ok(!shown.includes('c2lnbmF0dXJl'), shown);
    }
    assert.throws(() => steadfast.credential(), steadfast.NoCredential);
  });

  test('have each their own', async () => {
    const keys = Array.from({ length: 20 }, () => randomUUID());
    const slow = async () => {
      await new Promise((resolve) => setTimeout(resolve, 10));
      return steadfast.idempotencyKey();
    };
    const found = keys.map((key) => run(slow, { 'steadfast-idempotency-key': payload(key) }));
    assert.deepEqual(await Promise.all(found), keys);
  });

  test('are told what is missing', async () => {
    const none = async () => {
      assert.throws(() => steadfast.credential(), { name: 'NoCredential', message: /gives this activity no credential/ });
      assert.throws(() => steadfast.idempotencyKey(), { name: 'NoIdempotencyKey' });
    };
    for (const each of [undefined, payload('x', 'binary/encrypted'), payload({}), { metadata: {} }]) {
      await run(none, { 'steadfast-credential': each });
    }
  });

  test('that ask for a bad credential fail', async () => {
    for (const token of ['x', 'a.b', 'a.!.c', 'a.W10.c', 'a.e30.c', 'a.eyJleHAiOnRydWV9.c', 'a.eyJleHAiOjFlOTl9.c']) {
      const asks = async () => assert.throws(() => steadfast.credential(), { name: 'InvalidCredential' });
      await run(asks, { 'steadfast-credential': payload(token) });
    }
  });
});

describe('an exchange', { timeout: 30_000 }, () => {
  let http, url;
  const forms = [];

  before(async () => {
    http = createServer(async (request, response) => {
      let body = '';
      for await (const chunk of request) body += chunk;
      const answer = (value, code = 200, headers = {}) => response.writeHead(code, headers).end(JSON.stringify(value));
      if (request.method === 'GET') return answer({ issuer: url, token_endpoint: `${url}/oauth/token` });
      const form = Object.fromEntries(new URLSearchParams(body));
      forms.push(form);
      if (form.audience === 'forbidden') return answer({ error: 'invalid_target' }, 400);
      if (form.audience === 'elsewhere') return answer({}, 307, { location: `${url}/other` });
      return answer({ access_token: jwt({ iss: url, aud: form.audience }) });
    });
    http.listen(0, '127.0.0.1');
    await once(http, 'listening');
    url = `http://127.0.0.1:${http.address().port}`;
  });

  after(() => http.close());

  test('gives a credential for another audience', async () => {
    const token = jwt({ iss: url });
    const other = await steadfast.Credential.parse(token).exchange({ audience: 'https://b.example', scope: 'r' });
    assert.equal(other.claims.aud, 'https://b.example');
    assert.deepEqual(forms.splice(0), [
      {
        grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange',
        subject_token: token,
        subject_token_type: 'urn:ietf:params:oauth:token-type:jwt',
        audience: 'https://b.example',
        scope: 'r',
      },
    ]);
  });

  for (const [audience, message] of [['forbidden', /400: invalid_target/], ['elsewhere', /307/]]) {
    test(`that is ${audience}`, async () => {
      const exchange = steadfast.Credential.parse(jwt({ iss: url })).exchange({ audience });
      await assert.rejects(exchange, { name: 'ExchangeError', message });
      assert.equal(forms.splice(0).length, 1);
    });
  }

  test('sends nothing unencrypted over a network', async () => {
    for (const iss of ['http://steadfast.example.com', 'http://127.0.0.1.example.com', 'file:///etc/passwd', '', undefined]) {
      const exchange = steadfast.Credential.parse(jwt({ iss })).exchange({ audience: 'x' });
      await assert.rejects(exchange, { name: 'ExchangeError', message: /neither https nor on this machine/ });
    }
  });
});

describe('a server that gives credentials', { timeout: 120_000 }, () => {
  let server;

  before(async () => {
    server = await Server.start('--credentials');
  });

  after(async () => {
    assert.equal(await server.stop(), 0, server.log);
  });

  test('gives one to an activity, which exchanges it', async () => {
    const isActive = async (token) => {
      const body = new URLSearchParams({ token });
      const answer = await fetch(`${server.http}/oauth/introspect`, { method: 'POST', body });
      return (await answer.json()).active;
    };
    const seen = [];
    const greet = async (name) => {
      const credential = steadfast.credential();
      const other = await credential.exchange({ audience: 'https://b.example', scope: 'r' });
      seen.push({ credential, other, key: steadfast.idempotencyKey() });
      for (const each of [credential, other]) assert.equal(await isActive(each.token), true);
      return name;
    };
    const connection = await Connection.connect({ address: server.address });
    const native = await NativeConnection.connect({ address: server.address });
    const taskQueue = `credentials-${randomUUID()}`;
    const worker = await Worker.create({
      connection: native,
      taskQueue,
      workflowsPath: fileURLToPath(new URL('./workflows.mjs', import.meta.url)),
      activities: { greet },
      plugins: [new steadfast.CredentialPlugin()],
    });
    const client = new Client({ connection });
    const start = { args: ['you'], taskQueue, workflowId: taskQueue };
    assert.equal(await worker.runUntil(client.workflow.execute('greeting', start)), 'you');
    const [{ credential, other, key }] = seen;
    assert.equal(seen.length, 1);
    assert.equal(credential.claims.iss, server.http);
    assert.equal(credential.claims.sub, 'default/greeting');
    assert.equal(credential.claims.steadfast.idempotency_key, key);
    assert.equal(other.claims.aud, 'https://b.example');
    assert.equal(other.claims.scope, 'r');
    assert.equal(other.claims.steadfast.exchanged_from, credential.claims.jti);
    for (const each of [credential, other]) assert.equal(await isActive(each.token), false);
    await connection.close();
    await native.close();
  });
});
