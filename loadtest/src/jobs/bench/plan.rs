//! Which stages a bench has, and when the requests of each are due. Pure.

use std::time::Duration;

use super::{Options, RateType};
use crate::workload::Arrivals;

/// One stage: a name and a pace.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Stage {
    pub(super) name: String,
    pace: Pace,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Pace {
    /// The next request is due when another has ended.
    Closed { in_flight: u32 },
    /// As [`Pace::Closed`] with whatever is allowed.
    Saturated,
    /// Requests are due by the clock.
    Open(Arrivals),
}

/// The stages that are known before the first one has run.
pub(super) fn stages(options: &Options) -> Vec<Stage> {
    let each =
        |stage: &dyn Fn(f64) -> Stage| options.rate.iter().map(|rate| stage(*rate)).collect();
    match options.rate_type {
        RateType::Synchronous => vec![Stage::concurrent(1)],
        RateType::Throughput => vec![Stage::saturated()],
        RateType::Sweep => vec![Stage::concurrent(1), Stage::saturated()],
        RateType::Concurrent => each(&|rate| Stage::concurrent(whole(rate))),
        RateType::Constant => each(&Stage::constant),
        RateType::Poisson => each(&|rate| Stage::poisson(rate, options.seed)),
    }
}

/// `steps` rates evenly spaced strictly between the two ends; none if there is nothing between.
pub(super) fn sweep_rates(slowest: f64, fastest: f64, steps: u32) -> Vec<f64> {
    if slowest <= 0.0 || fastest <= slowest {
        return Vec::new();
    }
    let step = (fastest - slowest) / f64::from(steps + 1);
    (1..=steps).map(|index| slowest + step * f64::from(index)).collect()
}

// === impl Stage ===

impl Stage {
    /// `rate` requests per second, evenly.
    pub(super) fn constant(rate: f64) -> Self {
        let pace = Pace::Open(Arrivals::Constant { rate });
        Self { name: format!("constant {rate:.2}/s"), pace }
    }

    fn poisson(rate: f64, seed: u64) -> Self {
        let pace = Pace::Open(Arrivals::Poisson { rate, seed });
        Self { name: format!("poisson {rate:.2}/s"), pace }
    }

    fn concurrent(in_flight: u32) -> Self {
        let name = match in_flight {
            1 => "synchronous".into(),
            many => format!("concurrent {many}"),
        };
        Self { name, pace: Pace::Closed { in_flight } }
    }

    fn saturated() -> Self {
        Self { name: "throughput".into(), pace: Pace::Saturated }
    }

    /// The wanted rate; `None` in a closed loop.
    pub(super) fn rate(&self) -> Option<f64> {
        match self.pace {
            Pace::Open(Arrivals::Constant { rate } | Arrivals::Poisson { rate, .. }) => Some(rate),
            Pace::Closed { .. } | Pace::Saturated => None,
        }
    }

    /// Most requests in flight.
    pub(super) fn in_flight(&self, most: u32) -> usize {
        let in_flight = match self.pace {
            Pace::Closed { in_flight } => in_flight,
            Pace::Saturated | Pace::Open(_) => most,
        };
        usize::try_from(in_flight).unwrap_or(usize::MAX)
    }

    /// When each request is due, from the stage's start; `None` is "as soon as there is room".
    pub(super) fn schedule(&self) -> Box<dyn Iterator<Item = Option<Duration>> + Send> {
        match self.pace {
            Pace::Closed { .. } | Pace::Saturated => Box::new(std::iter::repeat(None)),
            Pace::Open(arrivals) => Box::new(arrivals.offsets().map(Some)),
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the options' check allows whole numbers from 1 to 1,000,000 only"
)]
fn whole(rate: f64) -> u32 {
    rate as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_tries_rates_strictly_between_its_ends() {
        assert_eq!(sweep_rates(2.0, 10.0, 3), [4.0, 6.0, 8.0]);
        assert!(sweep_rates(5.0, 5.0, 3).is_empty());
        assert!(sweep_rates(0.0, 9.0, 3).is_empty(), "nothing was answered one at a time");
    }

    #[test]
    fn several_rates_make_several_stages() {
        let options =
            Options { rate_type: RateType::Concurrent, rate: vec![1.0, 8.0], ..Options::default() };
        let stages = stages(&options);
        let widths: Vec<_> = stages.iter().map(|stage| stage.in_flight(512)).collect();
        assert_eq!((widths, stages[1].rate()), (vec![1, 8], None));
    }

    #[test]
    fn an_open_loop_is_due_by_the_clock_and_bounded_by_the_most_in_flight() {
        let stage = Stage::constant(2.0);
        let due: Vec<_> = stage.schedule().take(2).collect();
        assert_eq!(due, [Some(Duration::ZERO), Some(Duration::from_millis(500))]);
        assert_eq!((stage.in_flight(64), stage.rate()), (64, Some(2.0)));
    }
}
