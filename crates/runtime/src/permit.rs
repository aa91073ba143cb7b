//! The proof that a call was authorized.

use steadfast_engine::record::Cause;

/// Who calls what, and that they may. The runtime's functions ask for one, so that a forgotten
/// check does not compile; only the server's authorization makes them for calls from outside.
#[derive(Clone, Debug)]
pub struct Permit {
    cause: Cause,
}

impl Permit {
    /// The permit of a call that was authorized.
    pub fn granted(call: &str, principal: String, authentication: String) -> Self {
        Self {
            cause: Cause {
                call: call.to_owned(),
                principal,
                authentication,
            },
        }
    }

    /// The permit of a call that goes on after it was granted.
    pub(crate) fn of(cause: Cause) -> Self {
        Self { cause }
    }

    /// The permit of what the server does by itself.
    pub fn internal(what: &str) -> Self {
        Self {
            cause: Cause {
                call: format!("internal/{what}"),
                principal: "steadfast".into(),
                authentication: String::new(),
            },
        }
    }

    /// Who and what, as records say it.
    pub fn cause(&self) -> Cause {
        self.cause.clone()
    }
}
