//! Who is next: clients take turns, and each client's requests come in the order of their arrival. Pure.

use std::collections::{HashMap, VecDeque};

/// The requests that wait for the same pods.
#[derive(Debug)]
pub(super) struct Order<T> {
    waiting: HashMap<u64, VecDeque<(u64, T)>>,
    /// Clients with a request here, the next one first.
    turns: VecDeque<u64>,
}

/// A client, and the number of its request.
pub(super) type Place = (u64, u64);

// === impl Order ===

impl<T> Default for Order<T> {
    fn default() -> Self {
        Self { waiting: HashMap::new(), turns: VecDeque::new() }
    }
}

impl<T> Order<T> {
    /// A request joins.
    pub(super) fn join(&mut self, (client, number): Place, request: T) {
        let own = self.waiting.entry(client).or_default();
        if own.is_empty() {
            self.turns.push_back(client);
        }
        own.push_back((number, request));
    }

    /// The request that is next.
    pub(super) fn next(&self) -> Option<(Place, &T)> {
        let client = *self.turns.front()?;
        let (number, request) = self.waiting.get(&client)?.front()?;
        Some(((client, *number), request))
    }

    /// A request leaves. If it was served, its client's next one comes after everybody else's.
    pub(super) fn leave(&mut self, (client, number): Place, served: bool) {
        let Some(own) = self.waiting.get_mut(&client) else { return };
        own.retain(|(it, _)| *it != number);
        let is_last = own.is_empty();
        if is_last {
            self.waiting.remove(&client);
        }
        if is_last || served {
            self.turns.retain(|it| *it != client);
        }
        if served && !is_last {
            self.turns.push_back(client);
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

    fn of(places: &[Place]) -> Order<()> {
        let mut order = Order::default();
        places.iter().for_each(|place| order.join(*place, ()));
        order
    }

    #[test]
    fn clients_take_turns_however_many_requests_one_of_them_has() {
        let mut order = of(&[(1, 1), (1, 2), (1, 3), (2, 4), (3, 5), (2, 6)]);
        assert_eq!(served(&mut order), [(1, 1), (2, 4), (3, 5), (1, 2), (2, 6), (1, 3)]);
        assert!(order.next().is_none());
    }

    #[test]
    fn a_request_that_leaves_costs_its_client_no_turn_and_others_nothing() {
        let mut order = of(&[(1, 1), (1, 2), (2, 3), (3, 4)]);
        order.leave((1, 1), false);
        order.leave((2, 3), false);
        order.leave((2, 3), false);
        order.leave((9, 9), true);
        assert_eq!(served(&mut order), [(1, 2), (3, 4)]);
        assert!(
            order.waiting.is_empty() && order.turns.is_empty(),
            "nothing is kept of clients that left"
        );
    }

    #[test]
    fn a_client_that_comes_back_waits_for_the_others() {
        let mut order = of(&[(1, 1), (2, 2), (3, 3)]);
        order.leave((1, 1), true);
        order.join((1, 4), ());
        assert_eq!(served(&mut order), [(2, 2), (3, 3), (1, 4)]);
    }
}
