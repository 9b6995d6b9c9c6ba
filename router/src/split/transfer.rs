//! How long it takes to move KV blocks, learned.
//!
//! An observation is the time from sending a decode leg to its first token, of so many tokens moved. A
//! line is fitted through them, the latest counting most: a fixed time (messages, one decode step) and
//! a time per token. What was learned fades towards the default, so that one bad hour does not end
//! splitting for good: nobody would ever observe another transfer.

use std::time::Instant;

/// The line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Milliseconds that any transfer takes.
    pub fixed_ms: f64,
    /// Milliseconds that each moved token adds.
    pub ms_per_token: f64,
}

/// What is believed of transfers between pods of one place, and between pods of two.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// Within one, and wherever nobody says where the pods stand.
    pub near: Rate,
    /// From one to another.
    pub far: Rate,
}

/// What was observed, within a place and from one to another.
#[derive(Clone, Copy, Debug)]
pub struct Transfers {
    near: Line,
    far: Line,
}

/// What was observed of one kind: sums over transfers in which the latest count most.
#[derive(Clone, Copy, Debug)]
struct Line {
    prior: Rate,
    count: f64,
    tokens: f64,
    ms: f64,
    tokens_squared: f64,
    tokens_ms: f64,
    last: Option<Instant>,
}

/// What is left of older observations when a new one comes.
const FADE: f64 = 0.95;

/// After so many seconds without a transfer half of what was learned is forgotten.
const HALF_LIFE_S: f64 = 120.0;

/// The default's weight, in observations.
const PRIOR: f64 = 1.0;

/// A first transfer between two pods includes their handshake, seconds on a busy machine: an
/// observation counts with at most so many times what was expected, and so much more.
const MOST: (f64, f64) = (4.0, 50.0);

// === impl Rate ===

impl Default for Rate {
    fn default() -> Self {
        // 160 KB of KV per token (a mid-size model with grouped-query attention) over 25 GB/s, and one
        // decode step.
        Self { fixed_ms: 20.0, ms_per_token: 0.006 }
    }
}

impl Rate {
    /// From one place to another, until transfers have shown otherwise: the same over 3 GB/s, a
    /// 25-Gbit/s link, and a few round trips more.
    pub const FAR: Self = Self { fixed_ms: 25.0, ms_per_token: 0.05 };

    /// How long so many tokens take.
    #[must_use]
    pub fn ms(self, tokens: u32) -> f64 {
        self.fixed_ms + self.ms_per_token * f64::from(tokens)
    }
}

// === impl Rates ===

impl Rates {
    /// The rate between pods at these places.
    #[must_use]
    pub fn between(&self, one: Option<&str>, other: Option<&str>) -> Rate {
        if is_far(one, other) { self.far } else { self.near }
    }
}

/// Whether two pods are known to stand at different places.
#[must_use]
pub fn is_far(one: Option<&str>, other: Option<&str>) -> bool {
    one.zip(other).is_some_and(|(one, other)| one != other)
}

// === impl Transfers ===

impl Default for Transfers {
    fn default() -> Self {
        Self { near: Line::of(Rate::default()), far: Line::of(Rate::FAR) }
    }
}

impl Transfers {
    /// What is believed at `now`.
    #[must_use]
    pub fn rates(&self, now: Instant) -> Rates {
        Rates { near: self.near.rate(now), far: self.far.rate(now) }
    }

    /// So many tokens were moved in this time.
    pub fn observe(&mut self, now: Instant, is_far: bool, tokens: u32, ms: f64) {
        let line = if is_far { &mut self.far } else { &mut self.near };
        line.observe(now, tokens, ms);
    }
}

// === impl Line ===

impl Line {
    fn of(prior: Rate) -> Self {
        Self {
            prior,
            count: 0.0,
            tokens: 0.0,
            ms: 0.0,
            tokens_squared: 0.0,
            tokens_ms: 0.0,
            last: None,
        }
    }

    fn rate(&self, now: Instant) -> Rate {
        let (prior, faded) = (self.prior, self.faded(now));
        let count = faded.count + PRIOR;
        // The default is one observation at no tokens: it fixes the line where there is only one point.
        let ms = faded.ms + PRIOR * prior.fixed_ms;
        let spread = faded.tokens_squared - faded.tokens * faded.tokens / count;
        let together = faded.tokens_ms - faded.tokens * ms / count;
        if faded.count <= 0.0 || spread < 1.0 {
            return Rate { fixed_ms: ms / count, ..prior };
        }
        let ms_per_token = (together / spread).max(0.0);
        let fixed_ms = ((ms - ms_per_token * faded.tokens) / count).max(0.0);
        Rate { fixed_ms, ms_per_token }
    }

    fn observe(&mut self, now: Instant, tokens: u32, ms: f64) {
        let most = self.rate(now).ms(tokens) * MOST.0 + MOST.1;
        let (tokens, ms) = (f64::from(tokens), ms.clamp(0.0, most));
        let mut next = self.faded(now).scaled(FADE);
        next.count += 1.0;
        next.tokens += tokens;
        next.ms += ms;
        next.tokens_squared += tokens * tokens;
        next.tokens_ms += tokens * ms;
        next.last = Some(now);
        *self = next;
    }

    fn faded(&self, now: Instant) -> Self {
        let Some(last) = self.last else { return *self };
        let idle_s = now.saturating_duration_since(last).as_secs_f64();
        self.scaled((-idle_s / HALF_LIFE_S).exp2())
    }

    fn scaled(&self, by: f64) -> Self {
        Self {
            prior: self.prior,
            count: self.count * by,
            tokens: self.tokens * by,
            ms: self.ms * by,
            tokens_squared: self.tokens_squared * by,
            tokens_ms: self.tokens_ms * by,
            last: self.last,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_line_is_found_and_a_handshake_does_not_bend_it() {
        let (mut transfers, now) = (Line::of(Rate::default()), Instant::now());
        transfers.observe(now, 1_000, 12_000.0);
        assert!(transfers.rate(now).ms(1_000) < 200.0, "{:?}", transfers.rate(now));
        for tokens in [500, 1_000, 2_000, 4_000].into_iter().cycle().take(200) {
            transfers.observe(now, tokens, 50.0 + 0.1 * f64::from(tokens));
        }
        let rate = transfers.rate(now);
        assert!((rate.ms_per_token - 0.1).abs() < 0.01, "{rate:?}");
        assert!((rate.fixed_ms - 50.0).abs() < 15.0, "{rate:?}");
    }

    #[test]
    fn what_was_learned_is_forgotten_when_nothing_is_moved() {
        let (mut transfers, now) = (Line::of(Rate::default()), Instant::now());
        for _ in 0..50 {
            transfers.observe(now, 1_000, 5_000.0);
        }
        assert!(transfers.rate(now).ms(1_000) > 2_000.0);
        let later = now + Duration::from_secs(3_600);
        let (now_ms, then_ms) = (transfers.rate(later).ms(1_000), Rate::default().ms(1_000));
        assert!((now_ms - then_ms).abs() < 30.0, "{now_ms} against {then_ms}");
    }

    #[test]
    fn what_is_moved_within_a_place_says_nothing_of_what_is_moved_between_two() {
        let (mut transfers, now) = (Transfers::default(), Instant::now());
        let before = transfers.rates(now);
        assert!(before.far.ms(1_000) > before.near.ms(1_000));
        for _ in 0..50 {
            transfers.observe(now, true, 1_000, 500.0);
        }
        let after = transfers.rates(now);
        assert_eq!(after.near, before.near);
        assert!(after.far.ms(1_000) > 400.0, "{after:?}");
        for (one, other, is_far) in [
            (Some("a"), Some("a"), false),
            (Some("a"), Some("b"), true),
            (Some("a"), None, false),
            (None, None, false),
        ] {
            let rate = if is_far { after.far } else { after.near };
            assert_eq!(after.between(one, other), rate, "{one:?} {other:?}");
        }
    }
}
