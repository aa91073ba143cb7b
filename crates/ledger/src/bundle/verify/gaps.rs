//! Entries of a chain, or events of a history, that did not come yet.

use std::ops::{Add, Sub};

/// So many are told apart.
const MAX_GAPS: usize = 100;

/// Ranges of numbers that were left out: each by its first and its last one.
#[derive(Default)]
pub(super) struct Gaps<N>(Vec<(N, N)>);

impl<N> Gaps<N>
where
    N: Copy + PartialOrd + Add<Output = N> + Sub<Output = N> + From<u8>,
{
    /// Numbers are left out.
    pub fn open(&mut self, first: N, last: N) {
        if self.0.len() < MAX_GAPS {
            self.0.push((first, last));
        }
    }

    /// One of them comes after all.
    pub fn fill(&mut self, number: N) {
        let one = N::from(1);
        let gaps = std::mem::take(&mut self.0);
        for (first, last) in gaps {
            if (first..=last).contains(&number) {
                let parts = [(first, number - one), (number + one, last)];
                self.0
                    .extend(parts.iter().filter(|(first, last)| first <= last));
            } else {
                self.0.push((first, last));
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is left of them.
    pub fn iter(&self) -> impl Iterator<Item = (N, N)> {
        self.0.iter().copied()
    }
}
