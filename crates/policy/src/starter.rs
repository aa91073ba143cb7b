//! The policies to begin with: groups of people and programs, and what each may do.

use std::sync::LazyLock;

use crate::policies::{Policies, Problem, Source};

/// Name and text of each file.
pub const FILES: &[(&str, &str)] = &[
    ("admin.cedar", include_str!("../policies/admin.cedar")),
    ("agents.cedar", include_str!("../policies/agents.cedar")),
    ("approver.cedar", include_str!("../policies/approver.cedar")),
    ("auditor.cedar", include_str!("../policies/auditor.cedar")),
    (
        "everybody.cedar",
        include_str!("../policies/everybody.cedar"),
    ),
    ("operator.cedar", include_str!("../policies/operator.cedar")),
    ("worker.cedar", include_str!("../policies/worker.cedar")),
];

/// The groups that they are about.
pub const GROUPS: [&str; 5] = ["admin", "operator", "worker", "approver", "auditor"];

/// The policies. They are read once; that they are valid is tested.
pub fn policies() -> Result<Policies, Vec<Problem>> {
    static STARTER: LazyLock<Result<Policies, Vec<Problem>>> = LazyLock::new(|| {
        let sources = FILES.iter().map(|(name, text)| Source {
            name: (*name).to_owned(),
            text: (*text).to_owned(),
        });
        Policies::parse(&sources.collect::<Vec<_>>())
    });
    STARTER.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_valid_and_named_like_their_files() {
        let ids = policies().expect("are valid").ids();
        let names = FILES
            .iter()
            .map(|(name, _)| name.trim_end_matches(".cedar"));
        assert_eq!(ids, names.collect::<Vec<_>>());
        assert!(GROUPS.iter().all(|group| ids.iter().any(|id| id == group)));
    }
}
