// From a task's header to the activity. It needs nothing but Node.
'use strict';
const { AsyncLocalStorage } = require('node:async_hooks');

const CREDENTIAL_HEADER = 'steadfast-credential';
const IDEMPOTENCY_KEY_HEADER = 'steadfast-idempotency-key';
const MAX_ANSWER_CHARACTERS = 256 * 1024;

class CredentialError extends Error {
  get name() {
    return this.constructor.name;
  }
}
class NoCredential extends CredentialError {}
class NoIdempotencyKey extends CredentialError {}
class InvalidCredential extends CredentialError {}
class ExchangeError extends CredentialError {}

class Credential {
  // Private fields are not shown by util.inspect, JSON.stringify and String.
  #token;

  constructor(token, claims) {
    this.#token = token;
    this.claims = claims;
    Object.freeze(this);
  }

  static parse(token) {
    const parts = token.split('.');
    if (parts.length !== 3) throw new InvalidCredential('the credential is not a JWT of three parts');
    let claims;
    try {
      claims = JSON.parse(Buffer.from(parts[1], 'base64url').toString());
    } catch {
      // The parser's message has a part of the token.
      throw new InvalidCredential("the credential's claims cannot be read");
    }
    if (!isObject(claims)) throw new InvalidCredential("the credential's claims are not a JSON object");
    if (typeof claims.exp !== 'number' || Number.isNaN(new Date(claims.exp * 1000).getTime())) {
      throw new InvalidCredential('the credential does not say when it expires');
    }
    return new Credential(token, Object.freeze(claims));
  }

  get token() {
    return this.#token;
  }

  get expires() {
    return new Date(this.claims.exp * 1000);
  }

  get isExpired() {
    return Date.now() >= this.claims.exp * 1000;
  }

  get authorizationHeader() {
    return { Authorization: `Bearer ${this.#token}` };
  }

  async exchange({ audience, scope, timeoutMs = 10_000 }) {
    const fields = new URLSearchParams({
      grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange',
      subject_token: this.#token,
      subject_token_type: 'urn:ietf:params:oauth:token-type:jwt',
      audience,
    });
    if (scope !== undefined) fields.set('scope', scope);
    const refused = (why) => new ExchangeError(`no credential for ${JSON.stringify(audience)}: ${why}`);
    let answer;
    try {
      const issuer = checkedUrl(this.claims.iss);
      const metadata = await request(`${issuer.replace(/\/$/, '')}/.well-known/openid-configuration`, timeoutMs);
      if (metadata.issuer !== issuer) throw new Error('the metadata are about another issuer');
      answer = await request(checkedUrl(metadata.token_endpoint), timeoutMs, fields);
    } catch (error) {
      throw refused(error.message);
    }
    if (typeof answer.access_token !== 'string') throw refused('the answer has no access_token');
    return Credential.parse(answer.access_token);
  }
}

const calls = new AsyncLocalStorage();

function credential() {
  const call = current(NoCredential);
  if (call.token === undefined) {
    throw new NoCredential(
      `the task has no header ${CREDENTIAL_HEADER}: the server gives this activity no credential`,
    );
  }
  return Credential.parse(call.token);
}

function idempotencyKey() {
  const call = current(NoIdempotencyKey);
  if (call.key === undefined) throw new NoIdempotencyKey(`the task has no header ${IDEMPOTENCY_KEY_HEADER}`);
  return call.key;
}

function current(Missing) {
  const call = calls.getStore();
  if (call) return call;
  throw new Missing('not in an activity, or its worker has no CredentialPlugin or credentialInterceptor');
}

const credentialInterceptor = () => ({
  inbound: {
    execute(input, next) {
      const call = { token: text(input.headers[CREDENTIAL_HEADER]), key: text(input.headers[IDEMPOTENCY_KEY_HEADER]) };
      return calls.run(call, () => next(input));
    },
  },
});

class CredentialPlugin {
  get name() {
    return 'steadfast.CredentialPlugin';
  }

  configureWorker(options) {
    const activity = [...(options.interceptors?.activity ?? []), credentialInterceptor];
    return { ...options, interceptors: { ...options.interceptors, activity } };
  }
}

/** The server writes these headers itself: JSON, without the codec of workers. */
function text(payload) {
  const encoding = payload?.metadata?.encoding;
  if (!encoding || Buffer.from(encoding).toString() !== 'json/plain') return undefined;
  try {
    const value = JSON.parse(Buffer.from(payload.data ?? []).toString());
    return typeof value === 'string' ? value : undefined;
  } catch {
    return undefined;
  }
}

/** Refuses what would send tokens unencrypted over a network. */
function checkedUrl(url) {
  const parsed = typeof url === 'string' && URL.canParse(url) ? new URL(url) : undefined;
  const isLoopback = parsed && /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/.test(parsed.hostname);
  if (parsed?.protocol === 'https:' || (parsed?.protocol === 'http:' && isLoopback)) return url;
  throw new Error(`${JSON.stringify(url)} is neither https nor on this machine`);
}

/** Redirects are refused: tokens go where the issuer's metadata say, and nowhere else. */
async function request(url, timeoutMs, body) {
  const signal = AbortSignal.timeout(timeoutMs);
  const response = await fetch(url, { method: body ? 'POST' : 'GET', body, redirect: 'manual', signal });
  const answer = parsed(await limited(response));
  if (!response.ok) {
    const said = [answer?.error, answer?.error_description].filter((each) => typeof each === 'string');
    throw new Error([`${url}: ${response.status}`, ...said.map((each) => each.slice(0, 500))].join(': '));
  }
  if (!isObject(answer)) throw new Error(`${url}: the answer is not a JSON object`);
  return answer;
}

async function limited(response) {
  let content = '';
  const decoder = new TextDecoder();
  for await (const chunk of response.body ?? []) {
    content += decoder.decode(chunk, { stream: true });
    if (content.length > MAX_ANSWER_CHARACTERS) throw new Error(`${response.url}: the answer is too long`);
  }
  return content;
}

function parsed(content) {
  try {
    return JSON.parse(content);
  } catch {
    return undefined;
  }
}

function isObject(value) {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

exports.Credential = Credential;
exports.CredentialError = CredentialError;
exports.CredentialPlugin = CredentialPlugin;
exports.ExchangeError = ExchangeError;
exports.InvalidCredential = InvalidCredential;
exports.NoCredential = NoCredential;
exports.NoIdempotencyKey = NoIdempotencyKey;
exports.credential = credential;
exports.credentialInterceptor = credentialInterceptor;
exports.idempotencyKey = idempotencyKey;
