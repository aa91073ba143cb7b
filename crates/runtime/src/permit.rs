//! The proof that a call was authorized.

use std::sync::Arc;

use steadfast_engine::record::Cause;

/// What a principal is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// A person.
    User,
    /// A program, such as a worker.
    Service,
    /// An agent.
    Agent,
    /// Nobody has shown who they are.
    #[default]
    Unauthenticated,
}

impl Kind {
    /// Its name in configurations and answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Service => "service",
            Self::Agent => "agent",
            Self::Unauthenticated => "unauthenticated",
        }
    }
}

/// Who calls what, and that they may. The runtime's functions ask for one, so that a forgotten
/// check does not compile; only the server's authorization makes them for calls from outside.
#[derive(Clone, Debug)]
pub struct Permit {
    cause: Cause,
    kind: Kind,
    groups: Arc<[String]>,
}

impl Permit {
    /// The permit of a call that was authorized.
    pub fn granted(call: &str, principal: String, authentication: String) -> Self {
        Self::of(Cause {
            call: call.to_owned(),
            principal,
            authentication,
        })
    }

    /// What is known of the principal besides its name.
    pub fn with(mut self, kind: Kind, groups: Arc<[String]>) -> Self {
        self.kind = kind;
        self.groups = groups;
        self
    }

    /// The permit of a call that goes on after it was granted. The principal's kind and groups are
    /// those of the call itself only.
    pub(crate) fn of(cause: Cause) -> Self {
        Self {
            cause,
            kind: Kind::default(),
            groups: Arc::default(),
        }
    }

    /// The permit of what the server does by itself.
    pub fn internal(what: &str) -> Self {
        Self::of(Cause {
            call: format!("internal/{what}"),
            principal: "steadfast".into(),
            authentication: String::new(),
        })
    }

    /// Who and what, as records say it.
    pub fn cause(&self) -> Cause {
        self.cause.clone()
    }

    /// What the principal is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The groups of the principal, as its authentication has them.
    pub fn groups(&self) -> &[String] {
        &self.groups
    }
}
