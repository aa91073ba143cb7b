"""The credential and the idempotency key of a tool call, in activities on a Steadfast server.

Add `CredentialPlugin()` to a client or a worker (or `CredentialInterceptor()` to a worker's
interceptors). In an activity, `credential()` is then the credential of this attempt, and
`idempotency_key()` a key that all attempts of the activity share.
"""

from ._credential import (
    Credential,
    CredentialError,
    ExchangeError,
    InvalidCredential,
    NoCredential,
    NoIdempotencyKey,
)
from ._worker import (
    CREDENTIAL_HEADER,
    IDEMPOTENCY_KEY_HEADER,
    CredentialInterceptor,
    CredentialPlugin,
    credential,
    idempotency_key,
)

__all__ = [
    "CREDENTIAL_HEADER",
    "IDEMPOTENCY_KEY_HEADER",
    "Credential",
    "CredentialError",
    "CredentialInterceptor",
    "CredentialPlugin",
    "ExchangeError",
    "InvalidCredential",
    "NoCredential",
    "NoIdempotencyKey",
    "credential",
    "idempotency_key",
]
