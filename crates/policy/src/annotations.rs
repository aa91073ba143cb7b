//! Annotations: what a `forbid` says besides forbidding.
//!
//! `@approval("required")` makes it soft: where nothing harder forbids, people may approve. `@approvers`
//! has the groups that must be among them, `@quorum` how many people, `@timeout` how long they have.

use std::time::Duration;

use cedar_policy::{Effect, Policy};

/// How long people have, unless a policy says otherwise.
const TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// The longest time that a policy may give.
const MAX_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 3600);

/// Most groups, and most people, that a policy may ask for.
const MAX_APPROVERS: u32 = 100;

/// Whose approval is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// Each of these groups must be among those who approve, in order of their names. None: anybody.
    pub groups: Vec<String>,
    /// So many people.
    pub quorum: u32,
    /// How long they have.
    pub timeout: Duration,
}

impl Requirement {
    /// What satisfies both: all groups, the larger quorum, the shorter time.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.groups.extend(other.groups);
        self.groups.sort_unstable();
        self.groups.dedup();
        self.quorum = self.quorum.max(other.quorum);
        self.timeout = self.timeout.min(other.timeout);
        self
    }
}

/// Reads the annotations of a policy: what it requires if it is a soft one. Whatever is not known is an
/// error: a misspelt annotation would make a policy harder or softer than it looks.
pub(crate) fn read(policy: &Policy) -> Result<Option<Requirement>, String> {
    let mut is_soft = false;
    let mut requirement = Requirement {
        groups: Vec::new(),
        quorum: 1,
        timeout: TIMEOUT,
    };
    let mut needs_approval = None;
    for (key, value) in policy.annotations() {
        match key {
            "id" | "description" => {}
            "approval" if value == "required" => is_soft = true,
            "approval" => return Err(format!("@approval is \"required\", not {value:?}")),
            "approvers" => {
                requirement.groups = groups(value)?;
                needs_approval = Some(key);
            }
            "quorum" => {
                requirement.quorum = quorum(value)?;
                needs_approval = Some(key);
            }
            "timeout" => {
                requirement.timeout = duration(value)?;
                needs_approval = Some(key);
            }
            other => return Err(format!("there is no annotation @{other}")),
        }
    }
    match (is_soft, needs_approval) {
        (false, Some(key)) => Err(format!(
            "@{key} is for policies with @approval(\"required\")"
        )),
        (false, None) => Ok(None),
        (true, _) if policy.effect() == Effect::Permit => {
            Err("@approval is for forbid: a permit asks for nothing".to_owned())
        }
        (true, _) => Ok(Some(requirement)),
    }
}

fn groups(value: &str) -> Result<Vec<String>, String> {
    let groups: Vec<String> = value.split(',').map(|of| of.trim().to_owned()).collect();
    let is_bad = groups.iter().any(String::is_empty) || groups.len() > MAX_APPROVERS as usize;
    match is_bad {
        true => Err(format!(
            "@approvers has names of groups with commas between them, not {value:?}"
        )),
        false => Ok(groups),
    }
}

fn quorum(value: &str) -> Result<u32, String> {
    let number = value.parse().ok();
    let number = number.filter(|number| (1..=MAX_APPROVERS).contains(number));
    number.ok_or_else(|| format!("@quorum is a number from 1 to {MAX_APPROVERS}, not {value:?}"))
}

/// A duration of ISO 8601, in weeks, days, hours, minutes and seconds.
fn duration(value: &str) -> Result<Duration, String> {
    let seconds = seconds(value).map(Duration::from_secs);
    let seconds = seconds.filter(|of| !of.is_zero() && *of <= MAX_TIMEOUT);
    seconds.ok_or_else(|| {
        format!("@timeout is a duration such as PT4H or P2D, at most a year, not {value:?}")
    })
}

fn seconds(value: &str) -> Option<u64> {
    let mut rest = value.strip_prefix('P')?;
    let (mut total, mut is_time, mut count) = (0_u64, false, 0);
    while !rest.is_empty() {
        if let Some(time) = rest.strip_prefix('T').filter(|_| !is_time) {
            (is_time, rest) = (true, time);
            continue;
        }
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        let unit = rest[digits..].chars().next()?;
        let scale = match (is_time, unit) {
            (false, 'W') => 7 * 86_400,
            (false, 'D') => 86_400,
            (true, 'H') => 3600,
            (true, 'M') => 60,
            (true, 'S') => 1,
            _ => return None,
        };
        total = total.checked_add(number.checked_mul(scale)?)?;
        rest = &rest[digits + 1..];
        count += 1;
    }
    (count > 0 && !value.ends_with('T')).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requirement(annotations: &str, effect: &str) -> Result<Option<Requirement>, String> {
        let text = format!("{annotations} {effect} (principal, action, resource);");
        read(&Policy::parse(None, text).expect("parses"))
    }

    #[test]
    fn a_soft_forbid_says_whose_approval_it_needs() {
        let all = r#"@id("x") @description("y") @approval("required") @approvers("risk, finance")
            @quorum("3") @timeout("P1DT2H3M4S")"#;
        let expected = Requirement {
            groups: vec!["risk".into(), "finance".into()],
            quorum: 3,
            timeout: Duration::from_secs(86_400 + 7_384),
        };
        assert_eq!(requirement(all, "forbid"), Ok(Some(expected)));
        let least = Requirement {
            groups: vec![],
            quorum: 1,
            timeout: TIMEOUT,
        };
        assert_eq!(
            requirement(r#"@approval("required")"#, "forbid"),
            Ok(Some(least))
        );
        assert_eq!(requirement(r#"@id("x")"#, "forbid"), Ok(None));
        assert_eq!(requirement("", "permit"), Ok(None));
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for (annotations, effect) in [
            (r#"@approval("yes")"#, "forbid"),
            (r#"@approvals("required")"#, "forbid"),
            (r#"@approval("required")"#, "permit"),
            (r#"@quorum("2")"#, "forbid"),
            (r#"@approvers("a")"#, "permit"),
            (r#"@approval("required") @quorum("0")"#, "forbid"),
            (r#"@approval("required") @quorum("101")"#, "forbid"),
            (r#"@approval("required") @quorum("two")"#, "forbid"),
            (r#"@approval("required") @approvers("a,,b")"#, "forbid"),
            (r#"@approval("required") @approvers("")"#, "forbid"),
            (r#"@approval("required") @timeout("4h")"#, "forbid"),
            (r#"@approval("required") @timeout("PT0S")"#, "forbid"),
            (r#"@approval("required") @timeout("P366D")"#, "forbid"),
            (r#"@approval("required") @timeout("P1Y")"#, "forbid"),
            (r#"@approval("required") @timeout("PT")"#, "forbid"),
            (r#"@approval("required") @timeout("P")"#, "forbid"),
            (r#"@approval("required") @timeout("P1DT")"#, "forbid"),
            (
                r#"@approval("required") @timeout("P99999999999999999999D")"#,
                "forbid",
            ),
        ] {
            assert!(
                requirement(annotations, effect).is_err(),
                "{annotations} {effect}"
            );
        }
    }

    #[test]
    fn two_requirements_are_satisfied_together() {
        let of = |groups: &[&str], quorum, seconds| Requirement {
            groups: groups.iter().map(|of| (*of).to_owned()).collect(),
            quorum,
            timeout: Duration::from_secs(seconds),
        };
        let both = of(&["risk", "finance"], 2, 60).and(of(&["finance", "board"], 1, 30));
        assert_eq!(both, of(&["board", "finance", "risk"], 2, 30));
    }
}
