//! Who acts.

/// What kind of principal. Each is an entity type of the schema.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A person.
    User,
    /// A program, such as a worker.
    Service,
    /// A session: what an agent does by itself. Its id is `<namespace>/<workflow type>`.
    Agent,
    /// Whoever claims to be it, where nobody is authenticated.
    #[default]
    Unauthenticated,
}

/// Who acts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Principal {
    /// What kind.
    pub kind: Kind,
    /// Its id.
    pub id: String,
    /// Groups that it is in.
    pub groups: Vec<String>,
    /// How it was authenticated: `oidc`, `mtls`, `api-key`, `unauthenticated`.
    pub method: String,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::User,
        Self::Service,
        Self::Agent,
        Self::Unauthenticated,
    ];

    /// The entity type.
    pub fn entity_type(self) -> &'static str {
        match self {
            Self::User => "User",
            Self::Service => "Service",
            Self::Agent => "Agent",
            Self::Unauthenticated => "Unauthenticated",
        }
    }
}
