import type { ActivityInterceptorsFactory, WorkerPlugin } from '@temporalio/worker';

/** What is thrown here. Messages never have a token in them. */
export class CredentialError extends Error {}
/** There is no credential: the message says why. */
export class NoCredential extends CredentialError {}
/** There is no idempotency key: the message says why. */
export class NoIdempotencyKey extends CredentialError {}
/** What came as a credential is none. */
export class InvalidCredential extends CredentialError {}
/** The issuer gave no other token for a credential (RFC 8693). */
export class ExchangeError extends CredentialError {}

/** The tool call that a credential is for: the claim `steadfast`. */
export interface ToolCall {
  readonly namespace?: string;
  readonly workflow_id?: string;
  readonly run_id?: string;
  readonly activity_id?: string;
  readonly tool?: string;
  readonly attempt?: number;
  readonly initiator?: { readonly sub?: string; readonly auth?: string };
  readonly idempotency_key?: string;
}

/** What the token says. */
export interface Claims {
  readonly exp: number;
  readonly iss?: string;
  readonly sub?: string;
  readonly aud?: string | readonly string[];
  readonly jti?: string;
  readonly steadfast?: ToolCall;
  readonly [claim: string]: unknown;
}

export interface ExchangeOptions {
  readonly audience: string;
  readonly scope?: string;
  /** For each of two requests; 10,000 if it is not there. */
  readonly timeoutMs?: number;
}

/**
 * The credential of one attempt of an activity: a JWT that its issuer signed, read without verification.
 *
 * Neither `String`, `JSON.stringify` nor `util.inspect` shows the token. Do not return it from the
 * activity: results of activities are in the history.
 */
export class Credential {
  private constructor();
  /** Reads a JWT without verification. Throws `InvalidCredential`. */
  static parse(token: string): Credential;
  /** The JWT itself. */
  get token(): string;
  readonly claims: Claims;
  /** When it expires. */
  get expires(): Date;
  /** Whether it has expired by this machine's clock. */
  get isExpired(): boolean;
  /** `{ Authorization: 'Bearer …' }`, for HTTP clients. */
  get authorizationHeader(): { Authorization: string };
  /** A credential for another audience, from this one's issuer (RFC 8693). Throws `ExchangeError`. */
  exchange(options: ExchangeOptions): Promise<Credential>;
}

/** The credential of this attempt. Throws `NoCredential` or `InvalidCredential`. */
export function credential(): Credential;

/** A key for calls to the outside world: the same for all attempts of this activity. Throws `NoIdempotencyKey`. */
export function idempotencyKey(): string;

/** For `interceptors.activity` of a worker's options. */
export const credentialInterceptor: ActivityInterceptorsFactory;

/** `credentialInterceptor` as a plugin: for `plugins` of a worker's options. */
export class CredentialPlugin implements WorkerPlugin {
  get name(): string;
  configureWorker: NonNullable<WorkerPlugin['configureWorker']>;
}
