//! Who got how much: shares per upstream.

use std::collections::BTreeMap;

use super::percent;

/// Amounts by name.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Tally {
    amounts: BTreeMap<String, u64>,
}

/// How evenly an amount is spread.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// The most that one got.
    pub max: u64,
    /// The mean over all, idle ones included.
    pub mean: f64,
}

// === impl Tally ===

impl Tally {
    /// Adds `amount` to `name`.
    pub fn add(&mut self, name: &str, amount: u64) {
        match self.amounts.get_mut(name) {
            Some(sum) => *sum += amount,
            None => {
                self.amounts.insert(name.to_owned(), amount);
            }
        }
    }

    /// Every name with its amount, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.amounts.iter().map(|(name, amount)| (name.as_str(), *amount))
    }

    /// How many names there are.
    pub fn len(&self) -> usize {
        self.amounts.len()
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.amounts.is_empty()
    }

    /// The sum of all amounts.
    pub fn total(&self) -> u64 {
        self.amounts.values().sum()
    }

    /// The largest amount and its name; of equal ones the first by name.
    pub fn top(&self) -> Option<(&str, u64)> {
        self.iter().reduce(|best, next| if next.1 > best.1 { next } else { best })
    }

    /// The largest amount's share of all, in percent: "stickiness". 0 when empty.
    pub fn top_percent(&self) -> f64 {
        percent(self.top().map_or(0, |(_name, amount)| amount), self.total())
    }

    /// The load over at least `members` receivers: a pod that got nothing has no entry, but counts.
    pub fn load(&self, members: usize) -> Load {
        let members = self.len().max(members).max(1);
        Load {
            max: self.top().map_or(0, |(_name, amount)| amount),
            mean: self.total() as f64 / members as f64,
        }
    }
}

// === impl Load ===

impl Load {
    /// Largest over mean: 1 is even. 1 as well when nothing was sent.
    pub fn max_over_mean(self) -> f64 {
        if self.mean > 0.0 { self.max as f64 / self.mean } else { 1.0 }
    }
}

#[cfg(test)]
mod tests;
