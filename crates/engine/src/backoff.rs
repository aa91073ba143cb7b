//! Retry policies: their defaults, what is valid, and when the next attempt comes.

use crate::failure::timeout_name;
use crate::proto::common::RetryPolicy;
use crate::proto::enums::{RetryState, TimeoutType};
use crate::proto::failure::{Failure, failure::FailureInfo};
use crate::time::{SECOND, Span, Time, duration, span};

/// What precedes the name of a time-out in a policy's `non_retryable_error_types`.
const TIMEOUT_PREFIX: &str = "TemporalTimeout:";

/// Fills what a policy leaves open.
pub fn default_retry_policy(policy: &mut RetryPolicy) {
    if span(&policy.initial_interval) == 0 {
        policy.initial_interval = Some(duration(SECOND));
    }
    if span(&policy.maximum_interval) == 0 {
        let maximum = span(&policy.initial_interval).saturating_mul(100);
        policy.maximum_interval = Some(duration(maximum));
    }
    if policy.backoff_coefficient == 0.0 {
        policy.backoff_coefficient = 2.0;
    }
}

/// Whether a policy makes sense, once what it leaves open has its default.
pub fn validate_retry_policy(policy: &RetryPolicy) -> std::result::Result<(), String> {
    if policy.maximum_attempts == 1 {
        // It says not to retry: the rest has no meaning.
        return Ok(());
    }
    let mut policy = policy.clone();
    default_retry_policy(&mut policy);
    let initial = span(&policy.initial_interval);
    let maximum = span(&policy.maximum_interval);
    if initial < 0 {
        return Err("InitialInterval is negative.".into());
    }
    if maximum < 0 {
        return Err("MaximumInterval is negative.".into());
    }
    if policy.backoff_coefficient < 1.0 || policy.backoff_coefficient.is_nan() {
        return Err("BackoffCoefficient is less than 1.".into());
    }
    if maximum < initial {
        return Err("MaximumInterval is less than InitialInterval.".into());
    }
    if policy.maximum_attempts < 0 {
        return Err("MaximumAttempts is negative.".into());
    }
    for name in &policy.non_retryable_error_types {
        if let Some(timeout) = name.strip_prefix(TIMEOUT_PREFIX)
            && !names_timeout(timeout)
        {
            return Err(format!("there is no time-out type {timeout:?}."));
        }
    }
    Ok(())
}

/// What follows a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Next {
    /// Another attempt after this time.
    After(Span),
    /// None, and why.
    No(RetryState),
}

/// What follows attempt number `attempt` (1 = the first), which failed at `now` with `failure`;
/// `expires` is the time by which all attempts have to be over, 0 for none. A `next_retry_delay`
/// given here counts whatever the policy's maximum interval; one that only the failure names stays
/// within it.
pub fn next_attempt(
    policy: Option<&RetryPolicy>,
    now: Time,
    expires: Time,
    attempt: i32,
    failure: Option<&Failure>,
    next_retry_delay: Option<Span>,
) -> Next {
    let Some(policy) = policy else {
        return Next::No(RetryState::RetryPolicyNotSet);
    };
    if !is_retryable(failure, &policy.non_retryable_error_types) {
        return Next::No(RetryState::NonRetryableFailure);
    }
    let attempt = attempt.max(1);
    if policy.maximum_attempts > 0 && attempt >= policy.maximum_attempts {
        return Next::No(RetryState::MaximumAttemptsReached);
    }
    let maximum = next_retry_delay.unwrap_or_else(|| span(&policy.maximum_interval));
    let mut interval = next_retry_delay
        .or_else(|| delay_of(failure))
        .unwrap_or_else(|| exponential(policy, attempt));
    if maximum == 0 && interval <= 0 {
        return Next::No(RetryState::Timeout);
    }
    if maximum != 0 && (interval <= 0 || interval > maximum) {
        interval = maximum;
    }
    if expires != 0 && now.saturating_add(interval) > expires {
        return Next::No(RetryState::Timeout);
    }
    Next::After(interval)
}

fn exponential(policy: &RetryPolicy, attempt: i32) -> Span {
    let initial = span(&policy.initial_interval) as f64;
    // The conversion saturates, so no number of attempts overflows.
    (initial * policy.backoff_coefficient.powi(attempt - 1)) as Span
}

fn delay_of(failure: Option<&Failure>) -> Option<Span> {
    match failure?.failure_info.as_ref()? {
        FailureInfo::ApplicationFailureInfo(info) if info.next_retry_delay.is_some() => {
            Some(span(&info.next_retry_delay))
        }
        _ => None,
    }
}

/// Whether a failure allows another attempt. A time-out of the whole activity, or of its waiting
/// for a worker, does not: what it limits includes the attempts to come.
fn is_retryable(failure: Option<&Failure>, non_retryable: &[String]) -> bool {
    let Some(info) = failure.and_then(|failure| failure.failure_info.as_ref()) else {
        return true;
    };
    match info {
        FailureInfo::TerminatedFailureInfo(_) | FailureInfo::CanceledFailureInfo(_) => false,
        FailureInfo::TimeoutFailureInfo(info) => match info.timeout_type() {
            kind @ (TimeoutType::StartToClose | TimeoutType::Heartbeat) => !non_retryable
                .iter()
                .any(|name| name.strip_prefix(TIMEOUT_PREFIX) == Some(timeout_name(kind))),
            _ => false,
        },
        FailureInfo::ServerFailureInfo(info) => !info.non_retryable,
        FailureInfo::ApplicationFailureInfo(info) => {
            !info.non_retryable && !non_retryable.contains(&info.r#type)
        }
        _ => true,
    }
}

fn names_timeout(name: &str) -> bool {
    [
        TimeoutType::StartToClose,
        TimeoutType::ScheduleToStart,
        TimeoutType::ScheduleToClose,
        TimeoutType::Heartbeat,
    ]
    .into_iter()
    .any(|kind| name == timeout_name(kind) || name == kind.as_str_name())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::{server, timeout};
    use crate::proto::failure::{
        ApplicationFailureInfo, CanceledFailureInfo, ChildWorkflowExecutionFailureInfo,
        TerminatedFailureInfo,
    };
    use crate::time::MILLISECOND;

    fn policy(initial: Span, coefficient: f64, maximum: Span, attempts: i32) -> RetryPolicy {
        RetryPolicy {
            initial_interval: Some(duration(initial)),
            backoff_coefficient: coefficient,
            maximum_interval: Some(duration(maximum)),
            maximum_attempts: attempts,
            non_retryable_error_types: vec!["Fatal".into(), "TemporalTimeout:Heartbeat".into()],
        }
    }

    fn with_info(info: FailureInfo) -> Failure {
        Failure {
            failure_info: Some(info),
            ..Failure::default()
        }
    }

    fn application(name: &str, non_retryable: bool, delay: Option<Span>) -> Failure {
        with_info(FailureInfo::ApplicationFailureInfo(
            ApplicationFailureInfo {
                r#type: name.into(),
                non_retryable,
                next_retry_delay: delay.map(duration),
                ..Default::default()
            },
        ))
    }

    #[test]
    fn open_fields_get_their_defaults_and_others_stay() {
        let mut open = RetryPolicy::default();
        default_retry_policy(&mut open);
        assert_eq!(span(&open.initial_interval), SECOND);
        assert_eq!(span(&open.maximum_interval), 100 * SECOND);
        assert_eq!(open.backoff_coefficient, 2.0);
        assert_eq!(open.maximum_attempts, 0);

        let mut only_initial = RetryPolicy {
            initial_interval: Some(duration(3 * SECOND)),
            ..RetryPolicy::default()
        };
        default_retry_policy(&mut only_initial);
        assert_eq!(span(&only_initial.maximum_interval), 300 * SECOND);

        let mut full = policy(5, 1.5, 7, 9);
        default_retry_policy(&mut full);
        assert_eq!(full, policy(5, 1.5, 7, 9));
    }

    #[test]
    fn validation() {
        let named = |name: &str| RetryPolicy {
            non_retryable_error_types: vec![name.into()],
            ..RetryPolicy::default()
        };
        let table = [
            ("all open", RetryPolicy::default(), true),
            ("ordinary", policy(SECOND, 2.0, 10 * SECOND, 0), true),
            ("constant", policy(SECOND, 1.0, SECOND, 3), true),
            ("shrinking", policy(SECOND, 0.5, SECOND, 3), false),
            ("not a number", policy(SECOND, f64::NAN, SECOND, 3), false),
            (
                "maximum below initial",
                policy(2 * SECOND, 2.0, SECOND, 3),
                false,
            ),
            ("negative initial", policy(-SECOND, 2.0, SECOND, 3), false),
            ("negative maximum", policy(SECOND, 2.0, -SECOND, 3), false),
            ("negative attempts", policy(SECOND, 2.0, SECOND, -1), false),
            (
                "one attempt, the rest is nonsense",
                policy(-SECOND, 0.1, -SECOND, 1),
                true,
            ),
            ("time-out", named("TemporalTimeout:StartToClose"), true),
            (
                "time-out, long name",
                named("TemporalTimeout:TIMEOUT_TYPE_HEARTBEAT"),
                true,
            ),
            ("no such time-out", named("TemporalTimeout:Lunch"), false),
            (
                "unspecified time-out",
                named("TemporalTimeout:Unspecified"),
                false,
            ),
        ];
        for (name, policy, valid) in table {
            assert_eq!(validate_retry_policy(&policy).is_ok(), valid, "{name}");
        }
    }

    #[test]
    fn intervals_grow_up_to_the_maximum() {
        let policy = policy(SECOND, 2.0, 5 * SECOND, 6);
        let after = |attempt| next_attempt(Some(&policy), 0, 0, attempt, None, None);
        assert_eq!(after(0), Next::After(SECOND));
        assert_eq!(after(1), Next::After(SECOND));
        assert_eq!(after(2), Next::After(2 * SECOND));
        assert_eq!(after(3), Next::After(4 * SECOND));
        assert_eq!(after(4), Next::After(5 * SECOND));
        assert_eq!(after(5), Next::After(5 * SECOND));
        assert_eq!(after(6), Next::No(RetryState::MaximumAttemptsReached));
    }

    #[test]
    fn no_number_of_attempts_overflows() {
        let policy = policy(SECOND, 1e9, 5 * SECOND, 0);
        assert_eq!(
            next_attempt(Some(&policy), 0, 0, i32::MAX, None, None),
            Next::After(5 * SECOND)
        );
    }

    #[test]
    fn attempts_have_to_begin_before_the_end() {
        let policy = policy(SECOND, 2.0, 5 * SECOND, 0);
        let at = |now, expires| next_attempt(Some(&policy), now, expires, 2, None, None);
        assert_eq!(at(10 * SECOND, 12 * SECOND), Next::After(2 * SECOND));
        assert_eq!(
            at(10 * SECOND, 12 * SECOND - 1),
            Next::No(RetryState::Timeout)
        );
        assert_eq!(at(10 * SECOND, 0), Next::After(2 * SECOND));
        assert_eq!(
            next_attempt(None, 0, 0, 1, None, None),
            Next::No(RetryState::RetryPolicyNotSet)
        );
    }

    #[test]
    fn a_delay_replaces_the_interval() {
        let policy = policy(SECOND, 2.0, 5 * SECOND, 3);
        let failure = |delay| application("Busy", false, Some(delay));
        let next = |attempt, failure: &Failure, delay| {
            next_attempt(Some(&policy), 0, 0, attempt, Some(failure), delay)
        };
        let short = 300 * MILLISECOND;
        assert_eq!(next(2, &failure(short), None), Next::After(short));
        assert_eq!(next(2, &failure(9 * SECOND), None), Next::After(5 * SECOND));
        assert_eq!(
            next(2, &failure(9 * SECOND), Some(9 * SECOND)),
            Next::After(9 * SECOND)
        );
        assert_eq!(
            next(3, &failure(short), Some(short)),
            Next::No(RetryState::MaximumAttemptsReached)
        );
    }

    #[test]
    fn which_failures_allow_another_attempt() {
        let child = FailureInfo::ChildWorkflowExecutionFailureInfo(
            ChildWorkflowExecutionFailureInfo::default(),
        );
        let table = [
            ("application", application("Busy", false, None), true),
            ("application, final", application("Busy", true, None), false),
            (
                "application, listed",
                application("Fatal", false, None),
                false,
            ),
            ("server", server("", false), true),
            ("server, final", server("", true), false),
            (
                "start to close",
                timeout("", TimeoutType::StartToClose, None),
                true,
            ),
            (
                "heartbeat, listed",
                timeout("", TimeoutType::Heartbeat, None),
                false,
            ),
            (
                "schedule to start",
                timeout("", TimeoutType::ScheduleToStart, None),
                false,
            ),
            (
                "schedule to close",
                timeout("", TimeoutType::ScheduleToClose, None),
                false,
            ),
            (
                "cancelled",
                with_info(FailureInfo::CanceledFailureInfo(
                    CanceledFailureInfo::default(),
                )),
                false,
            ),
            (
                "terminated",
                with_info(FailureInfo::TerminatedFailureInfo(
                    TerminatedFailureInfo::default(),
                )),
                false,
            ),
            ("child", with_info(child), true),
            ("no info", Failure::default(), true),
        ];
        let policy = policy(SECOND, 2.0, 5 * SECOND, 0);
        for (name, failure, retried) in table {
            let next = next_attempt(Some(&policy), 0, 0, 1, Some(&failure), None);
            let expected = if retried {
                Next::After(SECOND)
            } else {
                Next::No(RetryState::NonRetryableFailure)
            };
            assert_eq!(next, expected, "{name}");
        }
    }
}
