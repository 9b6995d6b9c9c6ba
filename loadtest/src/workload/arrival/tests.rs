use proptest::prelude::*;

use super::*;

#[test]
fn constant_arrivals_are_evenly_spaced_from_zero() {
    let offsets: Vec<_> = Arrivals::Constant { rate: 4.0 }.offsets().take(4).collect();
    assert_eq!(offsets, [0, 250, 500, 750].map(Duration::from_millis));
}

#[test]
fn poisson_gaps_have_the_mean_and_the_spread_of_an_exponential() {
    let process = Arrivals::Poisson { rate: 50.0, seed: 7 };
    let gaps: Vec<f64> = (0..20_000).map(|index| process.gap_s(index)).collect();
    let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
    let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
    // Standard errors at n = 20,000 are 0.7 % of the mean and 1 % of the deviation.
    assert!((mean * 50.0 - 1.0).abs() < 0.03, "mean gap {mean} s");
    assert!((variance.sqrt() * 50.0 - 1.0).abs() < 0.05, "deviation {} s", variance.sqrt());
}

proptest! {
    #[test]
    fn the_same_seed_gives_the_same_times_and_they_never_go_back(
        seed in any::<u64>(),
        rate in 0.1f64..1e4,
    ) {
        let process = Arrivals::Poisson { rate, seed };
        let once: Vec<_> = process.offsets().take(64).collect();
        let twice: Vec<_> = process.offsets().take(64).collect();
        prop_assert_eq!(&once, &twice);
        prop_assert!(once.is_sorted());
    }

    #[test]
    fn a_uniform_number_is_above_zero_and_at_most_one(seed in any::<u64>(), index in any::<u64>()) {
        let number = uniform(seed, index);
        prop_assert!(number > 0.0 && number <= 1.0);
    }
}

#[test]
fn another_seed_gives_other_times() {
    let first = |seed| Arrivals::Poisson { rate: 1.0, seed }.offsets().next();
    assert_ne!(first(1), first(2));
}
