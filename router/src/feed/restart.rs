//! A feed that panics begins anew: nobody else looks at its pod.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::pod::Pod;

const LONGEST: Duration = Duration::from_secs(5);
/// Waits before a feed begins anew.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), LONGEST);

/// Runs a pod's feed until it ends by itself. When it panics, `lost` takes back what it may have left
/// half done, and it begins anew.
pub(super) async fn restarted<F: Future<Output = ()>>(
    (pod, feed): (Pod, &'static str),
    begin: impl Fn() -> F,
    lost: impl Fn(),
) {
    let mut backoff = BACKOFF;
    loop {
        let began = Instant::now();
        // What it was about to change is dropped with it, or is what `lost` takes back.
        let Err(panic) = AssertUnwindSafe(begin()).catch_unwind().await else { return };
        lost();
        let why = said(&*panic);
        tracing::error!(pod = %pod.name, feed, why, "a feed panicked and begins anew");
        if began.elapsed() > LONGEST {
            backoff.reset();
        }
        tokio::time::sleep(backoff.next()).await;
    }
}

fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("it did not say")
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_feed_that_panics_begins_anew_until_it_ends_by_itself() {
        let (began, lost) = (Cell::new(0), Cell::new(0));
        let feed = || async {
            began.set(began.get() + 1);
            assert_eq!((began.get(), lost.get()), (3, 2), "not yet");
        };
        let pod = Pod::plain("a", ([127, 0, 0, 1], 1).into());
        restarted((pod, "test"), feed, || lost.set(lost.get() + 1)).await;
        assert_eq!((began.get(), lost.get()), (3, 2));
    }
}
