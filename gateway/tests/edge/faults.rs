//! Every fault, at every moment of a request, and what the client sees of it: a table, cell by cell.

pub(crate) mod table;
pub(crate) mod view;
mod world;

use futures_util::stream::{self, StreamExt};

use self::table::{Cell, TABLE};
use self::world::{Topology, World};

/// Cells at once: most of them only wait for a deadline.
const AT_ONCE: usize = 4;

/// Worlds that a cell may take until its fault meets a request: whom a request goes to is decided by
/// how fast the pods were, and a machine that stalls can make the sound one look faster.
const WORLDS: usize = 5;

/// Runs a cell in a world of its own, and in another one while no request meets its fault.
async fn outcome(cell: &Cell) -> String {
    for _ in 0..WORLDS {
        let world = World::start(cell.topology).await;
        let outcome = world.outcome(cell).await;
        world.end().await;
        if let Some(outcome) = outcome {
            return outcome;
        }
    }
    format!("not met in {WORLDS} worlds")
}

async fn assert_cells(topology: Topology) {
    let cells = table::cells(TABLE, topology);
    assert!(cells.len() > 40, "only {} cells: the table is not read", cells.len());
    let run = |cell: Cell| async move {
        let seen = outcome(&cell).await;
        (seen != cell.outcome).then(|| format!("{cell}: {seen}"))
    };
    let wrong: Vec<String> = stream::iter(cells)
        .map(run)
        .buffered(AT_ONCE)
        .filter_map(std::future::ready)
        .collect()
        .await;
    assert!(wrong.is_empty(), "the table says otherwise:\n{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_pod_fails_as_the_table_says() {
    assert_cells(Topology::Single).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_prefills_fails_as_the_table_says() {
    assert_cells(Topology::Prefill).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_decodes_fails_as_the_table_says() {
    assert_cells(Topology::Decode).await;
}

#[test]
fn the_table_has_every_fault_at_every_moment_once() {
    let rows: Vec<_> = table::rows(TABLE).collect();
    let mut names: Vec<_> = rows.iter().map(|row| (row.what, row.at)).collect();
    names.sort_unstable();
    let known = table::known();
    assert_eq!(names, known);
}
