use std::collections::BTreeMap;

use super::*;

const SHAPE: DocumentsShape =
    DocumentsShape { documents: 30, sessions_per_document: 10, zipf: None };

#[test]
fn every_session_asks_twice_in_order_about_one_document() {
    let mut turns = BTreeMap::<u32, Vec<Turn>>::new();
    let mut documents = BTreeMap::<u32, u32>::new();
    for step in SHAPE.steps(1) {
        turns.entry(step.session).or_default().push(step.turn);
        assert_eq!(*documents.entry(step.session).or_insert(step.document), step.document);
    }
    assert_eq!(turns.len(), 300);
    assert!(turns.values().all(|turns| *turns == [Turn::First, Turn::Second]));
    let mut sessions = BTreeMap::<u32, u32>::new();
    documents.values().for_each(|document| *sessions.entry(*document).or_default() += 1);
    assert!(sessions.len() == 30 && sessions.values().all(|count| *count == 10));
}

#[test]
fn by_zipfs_law_the_first_document_is_asked_about_most_and_nothing_is_lost() {
    let shape = DocumentsShape { documents: 60, sessions_per_document: 10, zipf: Some(1.1) };
    let steps = shape.steps(1);
    assert_eq!(steps.len(), 1200);
    let mut requests = [0_u32; 60];
    steps.iter().for_each(|step| requests[step.document as usize] += 1);
    // The first of 60 has 1 / sum(n^-1.1) = 26 % of the sessions, the second 12 %.
    let share = |document: usize| f64::from(requests[document]) / 1200.0;
    assert!((share(0) - 0.26).abs() < 0.06, "{requests:?}");
    assert!((share(1) - 0.12).abs() < 0.05, "{requests:?}");
    assert_ne!(steps, shape.steps(2));
}

#[test]
fn the_order_is_a_function_of_the_seed() {
    assert_eq!(SHAPE.steps(1), SHAPE.steps(1));
    assert_ne!(SHAPE.steps(1), SHAPE.steps(2));
}

/// The property that makes the workload tell policies apart: LRU caches of 12 documents, fed round
/// robin, forget most of them; one that sees a third of the documents forgets none.
#[test]
fn round_robin_forgets_what_a_document_aware_router_keeps() {
    let hits = |pod_of: &dyn Fn(usize, &Step) -> usize| {
        let mut caches = vec![Vec::<u32>::new(); 3];
        let mut hits = 0;
        for (index, step) in SHAPE.steps(1).iter().enumerate() {
            let cache = &mut caches[pod_of(index, step)];
            if let Some(at) = cache.iter().position(|document| *document == step.document) {
                cache.remove(at);
                hits += 1;
            }
            cache.push(step.document);
            if cache.len() > 12 {
                cache.remove(0);
            }
        }
        f64::from(hits) / 600.0
    };
    let round_robin = hits(&|index, _step| index % 3);
    let by_document = hits(&|_index, step| step.document as usize % 3);
    assert!(round_robin < 0.45, "round-robin keeps {round_robin}");
    assert!(by_document > 0.94, "by document: {by_document}");
}
