//! Latencies and errors of one measurement.

use std::{collections::BTreeMap, sync::Mutex, sync::MutexGuard, time::Duration};

use serde::Serialize;

/// Collects latencies while its window is open, and errors always.
#[derive(Default)]
pub struct Recorder {
    latencies: Mutex<Option<Vec<Duration>>>,
    errors: Mutex<BTreeMap<String, u64>>,
}

impl Recorder {
    /// Starts to keep latencies.
    pub fn open(&self) {
        *lock(&self.latencies) = Some(Vec::new());
    }

    /// Stops, and gives those that were kept.
    pub fn close(&self) -> Vec<Duration> {
        lock(&self.latencies).take().unwrap_or_default()
    }

    /// One workflow was completed.
    pub fn completed(&self, latency: Duration) {
        if let Some(latencies) = lock(&self.latencies).as_mut() {
            latencies.push(latency);
        }
    }

    /// Something went wrong that does not belong into a measurement.
    pub fn failed(&self, what: impl Into<String>) {
        *lock(&self.errors).entry(what.into()).or_default() += 1;
    }

    /// How often each thing went wrong.
    pub fn errors(&self) -> BTreeMap<String, u64> {
        lock(&self.errors).clone()
    }
}

/// Whoever panicked while holding one of these locks left only counters behind.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Exact percentiles in milliseconds.
#[derive(Debug, Default, Clone, Copy, PartialEq, Serialize)]
pub struct Latency {
    /// Half were at most this.
    pub p50: f64,
    /// 90 of 100 were at most this.
    pub p90: f64,
    /// 99 of 100 were at most this.
    pub p99: f64,
    /// The slowest.
    pub max: f64,
}

impl Latency {
    /// Of all samples; zeros if there are none.
    pub fn of(mut samples: Vec<Duration>) -> Self {
        samples.sort_unstable();
        let at = |percent: usize| {
            // Nearest rank: the smallest sample that is not below `percent` of all.
            let rank = (samples.len() * percent).div_ceil(100).max(1);
            samples
                .get(rank - 1)
                .map_or(0.0, |sample| sample.as_secs_f64() * 1e3)
        };
        Self {
            p50: at(50),
            p90: at(90),
            p99: at(99),
            max: at(100),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let samples = (1..=200).rev().map(Duration::from_millis).collect();
        let latency = Latency::of(samples);
        assert_eq!(
            latency,
            Latency {
                p50: 100.0,
                p90: 180.0,
                p99: 198.0,
                max: 200.0
            }
        );
        assert_eq!(Latency::of(Vec::new()), Latency::default());
    }

    #[test]
    fn only_the_open_window_counts() {
        let recorder = Recorder::default();
        recorder.completed(Duration::from_millis(1));
        recorder.open();
        recorder.completed(Duration::from_millis(2));
        assert_eq!(recorder.close(), [Duration::from_millis(2)]);
        recorder.completed(Duration::from_millis(3));
        assert!(recorder.close().is_empty());
    }
}
