//! Who is next: addresses take turns, within an address its keys do, and the requests of one key come in
//! the order of their arrival. Pure.

use std::collections::{HashMap, VecDeque};

use super::Client;

/// The requests that wait for the same pods: by address, then by key, with their numbers.
#[derive(Debug)]
pub(super) struct Order<T>(Turns<Turns<VecDeque<(u64, T)>>>);

/// Lines that take turns; none of them is empty.
#[derive(Debug)]
struct Turns<L> {
    lines: HashMap<u64, L>,
    /// Whose turn it is, the next one first.
    turns: VecDeque<u64>,
}

/// A client, and the number of its request.
pub(super) type Place = (Client, u64);

// === impl Order ===

impl<T> Default for Order<T> {
    fn default() -> Self {
        Self(Turns::default())
    }
}

impl<T> Order<T> {
    /// A request joins.
    pub(super) fn join(&mut self, (client, number): Place, request: T) {
        self.0.line(client.address).line(client.key).push_back((number, request));
    }

    /// The request that is next.
    pub(super) fn next(&self) -> Option<(Place, &T)> {
        let (address, keys) = self.0.first()?;
        let (key, own) = keys.first()?;
        let (number, request) = own.front()?;
        Some(((Client { address, key }, *number), request))
    }

    /// A request leaves. If it was served, its client's next one comes after everybody else's.
    pub(super) fn leave(&mut self, (client, number): Place, served: bool) {
        let Some(keys) = self.0.lines.get_mut(&client.address) else { return };
        let Some(own) = keys.lines.get_mut(&client.key) else { return };
        own.retain(|(it, _)| *it != number);
        let is_last = own.is_empty();
        keys.pass(client.key, is_last, served);
        let is_last = keys.lines.is_empty();
        self.0.pass(client.address, is_last, served);
    }
}

// === impl Turns ===

impl<L> Default for Turns<L> {
    fn default() -> Self {
        Self { lines: HashMap::new(), turns: VecDeque::new() }
    }
}

impl<L> Turns<L> {
    /// The line of one that waits from now on, if it did not before.
    fn line(&mut self, of: u64) -> &mut L
    where
        L: Default,
    {
        self.lines.entry(of).or_insert_with(|| {
            self.turns.push_back(of);
            L::default()
        })
    }

    /// The line whose turn it is.
    fn first(&self) -> Option<(u64, &L)> {
        let of = *self.turns.front()?;
        Some((of, self.lines.get(&of)?))
    }

    /// Somebody has left a line: it ends if that was the last, and comes after all others if it was
    /// served.
    fn pass(&mut self, of: u64, is_last: bool, served: bool) {
        if is_last {
            self.lines.remove(&of);
        }
        if is_last || served {
            self.turns.retain(|it| *it != of);
        }
        if served && !is_last {
            self.turns.push_back(of);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Serves all, and says whose requests came in which order.
    fn served(order: &mut Order<()>) -> Vec<Place> {
        let next = std::iter::from_fn(|| {
            let (place, ()) = order.next()?;
            order.leave(place, true);
            Some(place)
        });
        next.collect()
    }

    /// The same by addresses alone.
    fn addresses(order: &mut Order<()>) -> Vec<(u64, u64)> {
        let served = served(order).into_iter();
        served.map(|(client, number)| (client.address, number)).collect()
    }

    /// A key of this address and this number, and the number of a request.
    fn place((address, key): (u64, u64), number: u64) -> Place {
        (Client { address, key }, number)
    }

    /// Requests of clients with an address of their own.
    fn of(places: &[(u64, u64)]) -> Order<()> {
        let mut order = Order::default();
        places.iter().for_each(|(client, number)| order.join(place((*client, 0), *number), ()));
        order
    }

    #[test]
    fn keys_take_turns_within_their_address_and_a_new_one_is_no_turn_more() {
        let mut order = Order::default();
        let waits = [((1, 1), 1), ((1, 1), 2), ((1, 2), 3), ((1, 3), 4), ((2, 1), 5), ((2, 1), 6)];
        waits.iter().for_each(|(client, number)| order.join(place(*client, *number), ()));
        let numbers: Vec<_> = served(&mut order).iter().map(|(_, number)| *number).collect();
        assert_eq!(numbers, [1, 5, 3, 6, 4, 2]);
        assert!(order.0.lines.is_empty(), "nothing is kept of those that left");
    }

    #[test]
    fn clients_take_turns_however_many_requests_one_of_them_has() {
        let mut order = of(&[(1, 1), (1, 2), (1, 3), (2, 4), (3, 5), (2, 6)]);
        assert_eq!(addresses(&mut order), [(1, 1), (2, 4), (3, 5), (1, 2), (2, 6), (1, 3)]);
        assert!(order.next().is_none());
    }

    #[test]
    fn a_request_that_leaves_costs_its_client_no_turn_and_others_nothing() {
        let mut order = of(&[(1, 1), (1, 2), (2, 3), (3, 4)]);
        order.leave(place((1, 0), 1), false);
        order.leave(place((2, 0), 3), false);
        order.leave(place((2, 0), 3), false);
        order.leave(place((9, 0), 9), true);
        assert_eq!(addresses(&mut order), [(1, 2), (3, 4)]);
        assert!(
            order.0.lines.is_empty() && order.0.turns.is_empty(),
            "nothing is kept of clients that left"
        );
    }

    #[test]
    fn a_client_that_comes_back_waits_for_the_others() {
        let mut order = of(&[(1, 1), (2, 2), (3, 3)]);
        order.leave(place((1, 0), 1), true);
        order.join(place((1, 0), 4), ());
        assert_eq!(addresses(&mut order), [(2, 2), (3, 3), (1, 4)]);
    }
}
