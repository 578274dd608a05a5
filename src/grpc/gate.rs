//! Who is let in: what is above the limit is shed at once, and nothing new begins while draining.
//!
//! Emergency calls never come here (contract rule 13).

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::{Semaphore, SemaphorePermit};
use tonic::Status;

use crate::metrics::{self, Shed};

/// See the module.
#[derive(Debug)]
pub struct Gate {
    permits: Semaphore,
    most: AtomicUsize,
    draining: AtomicBool,
}

impl Gate {
    /// Open to so many requests at a time.
    pub fn new(most: u32) -> Gate {
        let most = permits(most);
        Gate {
            permits: Semaphore::new(most),
            most: AtomicUsize::new(most),
            draining: AtomicBool::new(false),
        }
    }

    /// Open to so many from now on. Who is inside stays; where that are more, nobody comes in until enough
    /// have left.
    pub async fn set_most(&self, most: u32) {
        let most = permits(most);
        let before = self.most.swap(most, Ordering::AcqRel);
        if most >= before {
            self.permits.add_permits(most - before);
            return;
        }
        // One by one, as they are given back; an error is that the semaphore is closed, which it never is.
        for _ in most..before {
            if let Ok(permit) = self.permits.acquire().await {
                permit.forget();
            }
        }
    }

    /// From now on nothing new begins; what runs may go on and end.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether nothing new begins any more.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Lets in a request about a call that runs; to be held until it is answered.
    #[allow(clippy::result_large_err, reason = "a status is what the caller gets")]
    pub fn enter(&self) -> Result<SemaphorePermit<'_>, Status> {
        let shed = |_| {
            metrics::get().shed(Shed::InFlight);
            Status::resource_exhausted("too many requests in flight; no decision was made")
        };
        self.permits.try_acquire().map_err(shed)
    }

    /// Lets in a request that begins something.
    #[allow(clippy::result_large_err, reason = "a status is what the caller gets")]
    pub fn enter_new(&self) -> Result<SemaphorePermit<'_>, Status> {
        if self.draining.load(Ordering::Acquire) {
            metrics::get().shed(Shed::Draining);
            return Err(Status::unavailable("shutting down; ask another server"));
        }
        self.enter()
    }
}

/// A u32 is a usize on every machine that this is built for.
fn permits(most: u32) -> usize {
    usize::try_from(most).unwrap_or(Semaphore::MAX_PERMITS).min(Semaphore::MAX_PERMITS)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tonic::Code;

    use super::*;

    #[test]
    fn what_is_above_the_limit_is_shed_until_another_has_left() {
        let gate = Gate::new(1);
        let first = gate.enter().expect("the first");
        assert_eq!(gate.enter_new().expect_err("one too many").code(), Code::ResourceExhausted);
        drop(first);
        assert!(gate.enter_new().is_ok(), "the first has left");
    }

    #[tokio::test]
    async fn the_limit_may_change_while_requests_are_inside() {
        let gate = Gate::new(1);
        let first = gate.enter().expect("the first");
        gate.set_most(2).await;
        let second = gate.enter().expect("there is room for two");
        {
            let mut narrower = std::pin::pin!(gate.set_most(1));
            assert!(narrower.as_mut().now_or_never().is_none(), "both are inside");
            drop(second);
            narrower.await;
        }
        assert!(gate.enter().is_err(), "the first is the one that may be inside");
        drop(first);
        assert!(gate.enter().is_ok());
    }

    #[test]
    fn while_draining_nothing_new_begins() {
        let gate = Gate::new(1);
        gate.drain();
        assert_eq!(gate.enter_new().expect_err("it is new").code(), Code::Unavailable);
        assert!(gate.enter().is_ok(), "its call runs");
    }
}
