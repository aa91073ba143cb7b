//! The credential that an attempt of an activity is given: which one, for whom, and until when.
//!
//! It is part of the attempt, and so of the record of its hand-out: what exists can be looked up. The
//! engine signs nothing, and never has the token itself.

use std::collections::BTreeMap;

use crate::run::{Cx, Run};
use crate::state::{Activity, Credential, RunState};
use crate::time::{SECOND, Span, Time, span};

/// What credentials are like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// For whom they are.
    pub audience: String,
    /// For whom those of some tools are, by activity type.
    pub audiences: BTreeMap<String, String>,
    /// Longest time that one is valid.
    pub lifetime: Span,
}

/// Why a credential of an attempt is worth nothing, or that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialState {
    /// The attempt that it was given to is under way.
    Active,
    /// Its session is paused.
    Paused,
    /// Its session has ended.
    Closed,
    /// Its attempt has ended, or was never given this credential.
    Over,
}

/// Which credential is asked about.
#[derive(Clone, Copy, Debug)]
pub struct CredentialClaim<'a> {
    /// The credential that the attempt itself was given.
    pub id: &'a str,
    /// Activity id.
    pub activity_id: &'a str,
    /// Number of the attempt.
    pub attempt: i32,
}

impl Terms {
    /// For whom the credential of a tool is.
    pub fn audience_of(&self, tool: &str) -> &str {
        self.audiences.get(tool).unwrap_or(&self.audience)
    }
}

impl RunState {
    /// What a credential is worth now. Whatever may end it before its attempt ends belongs here.
    pub fn credential_state(&self, claim: &CredentialClaim<'_>) -> CredentialState {
        if !self.is_running() {
            return CredentialState::Closed;
        }
        if self.paused().is_some() {
            return CredentialState::Paused;
        }
        let is_it = |activity: &Activity| {
            let attempt = activity.attempt();
            let credential = attempt.credential.as_ref();
            activity.is_started()
                && attempt.number == claim.attempt
                && activity.scheduled().activity_id == claim.activity_id
                && credential.is_some_and(|of| of.id == claim.id)
        };
        match self.activities.values().any(is_it) {
            true => CredentialState::Active,
            false => CredentialState::Over,
        }
    }
}

impl Run {
    /// The credential of an attempt that is handed out now; none if there are none.
    pub(crate) fn new_credential(
        &self,
        cx: &mut Cx<'_>,
        activity: &Activity,
    ) -> Option<Credential> {
        let terms = cx.credentials?;
        let scheduled = activity.scheduled();
        let tool = scheduled.activity_type.as_ref().map_or("", |of| &of.name);
        Some(Credential {
            id: cx.ids.uuid(),
            audience: terms.audience_of(tool).to_owned(),
            expires: expiry(terms.lifetime, activity, cx.now),
        })
    }
}

/// A whole second: not after the attempt can have timed out, but never the one in which it begins.
fn expiry(lifetime: Span, activity: &Activity, now: Time) -> Time {
    let start_to_close = span(&activity.scheduled().start_to_close_timeout);
    let deadlines = [
        (start_to_close > 0).then(|| now.saturating_add(start_to_close)),
        Some(activity.expires()).filter(|at| *at > 0),
    ];
    let deadlines = deadlines.into_iter().flatten();
    let expires = deadlines.fold(now.saturating_add(lifetime), Time::min);
    let whole = |time: Time| time - time.rem_euclid(SECOND);
    whole(expires).max(whole(now) + SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::history::ActivityTaskScheduledEventAttributes;
    use crate::time::duration;

    #[test]
    fn a_credential_expires_with_its_attempt_at_the_latest() {
        const NOW: Time = 1_700_000_000 * SECOND + 250_000_000;
        let begun = NOW - 250_000_000;
        // Start-to-close, schedule-to-close and since when, and when it expires. In milliseconds.
        let table: [(i64, i64, i64, i64); 6] = [
            (0, 0, 0, 900_000),
            (60_000, 0, 0, 60_000),
            (60_000, 90_000, 50_000, 40_000),
            (7_200_000, 0, 0, 900_000),
            (1_999, 0, 0, 2_000),
            (300, 0, 0, 1_000),
        ];
        for (start_to_close, to_close, waited, expected) in table {
            let of = |milliseconds: i64| Some(duration(milliseconds * 1_000_000));
            let activity = Activity {
                scheduled: Some(ActivityTaskScheduledEventAttributes {
                    start_to_close_timeout: of(start_to_close),
                    schedule_to_close_timeout: of(to_close),
                    ..Default::default()
                }),
                scheduled_time: NOW - waited * 1_000_000,
                ..Activity::default()
            };
            let expires = expiry(900 * SECOND, &activity, NOW);
            assert_eq!(expires - begun, expected * 1_000_000, "{start_to_close}");
        }
    }
}
