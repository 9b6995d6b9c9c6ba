//! Whether requests are at a pod: its feeds look less often at one that has none.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Our requests at one pod.
#[derive(Debug, Default)]
pub struct Traffic {
    visits: AtomicUsize,
    begun: Notify,
}

/// A request at a pod; dropped when it is no longer there.
#[derive(Debug)]
pub struct Visit(Arc<Traffic>);

// === impl Traffic ===

impl Traffic {
    /// A request goes there.
    #[must_use]
    pub fn visit(self: &Arc<Self>) -> Visit {
        if self.visits.fetch_add(1, Ordering::Relaxed) == 0 {
            self.begun.notify_one();
        }
        Visit(Arc::clone(self))
    }

    /// Whether any request is there.
    pub(crate) fn is_any(&self) -> bool {
        self.visits.load(Ordering::Relaxed) > 0
    }

    /// Waits until the first request comes after none, or has come since the last call. For one
    /// listener.
    pub(crate) async fn begins(&self) {
        self.begun.notified().await;
    }
}

// === impl Visit ===

impl Drop for Visit {
    fn drop(&mut self) {
        self.0.visits.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visits_are_counted_until_they_end_and_the_first_one_wakes() {
        let traffic = Arc::new(Traffic::default());
        let mut woken = begun_at_once(&traffic);
        assert!(!woken(), "nobody came");
        let first = traffic.visit();
        let second = traffic.visit();
        assert!(woken(), "the first one was there before anybody waited");
        assert!(!woken(), "the second one is no news");
        drop(first);
        assert!(traffic.is_any());
        drop(second);
        assert!(!traffic.is_any());
        let _third = traffic.visit();
        assert!(woken());
    }

    /// Whether `begins` is over at once.
    fn begun_at_once(traffic: &Arc<Traffic>) -> impl FnMut() -> bool {
        use futures_util::FutureExt;
        let traffic = Arc::clone(traffic);
        move || traffic.begins().now_or_never().is_some()
    }
}
