//! Places where a process may die, for the tests that kill it there. Nothing in any other build.

/// A place between two steps that must both be survived.
#[cfg(not(test))]
#[inline(always)]
pub(super) fn reach(_place: &'static str) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
pub(super) use tests::reach;

#[cfg(test)]
pub(super) mod tests {
    use std::cell::RefCell;
    use std::sync::Arc;

    use super::super::crash_tests::Plan;

    thread_local! {
        static PLAN: RefCell<Option<Arc<Plan>>> = const { RefCell::new(None) };
    }

    /// Says what happens at the places that this thread comes to.
    pub(in crate::evidence) fn follow(plan: Option<Arc<Plan>>) {
        PLAN.with_borrow_mut(|current| *current = plan);
    }

    pub(in crate::evidence) fn reach(place: &'static str) -> std::io::Result<()> {
        let plan = PLAN.with_borrow(Clone::clone);
        match plan.is_none_or(|plan| plan.goes_on(place)) {
            true => Ok(()),
            false => Err(std::io::Error::other(format!(
                "the process died at {place}"
            ))),
        }
    }
}
