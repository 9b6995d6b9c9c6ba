//! A gateway before a few simulated pods, one of which fails.

use std::time::Duration;

use loadtest::simulator::{Fleet, Simulator};
use serde_json::{Value, json};

use super::table::Cell;
use super::view::{Truth, View};
use crate::support::client::{post, whole};
use crate::support::{House, MODEL, config, fast_pod, hasten, ms, within};

/// Which pods there are, and which of them fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Topology {
    /// Two pods that do everything.
    Single,
}

/// What a cell is played in.
pub(super) struct World {
    house: House,
    /// The pods behind the gateway, then one that is not and always sound.
    fleet: Fleet,
}

/// A deadline, of which a client would be told. A pod that is sound says something after a few
/// milliseconds, and one that is not is left long before.
const DEADLINE: Duration = Duration::from_secs(20);

const PATH: &str = "/v1/chat/completions";

// === impl Topology ===

impl Topology {
    /// The first of its two columns in the table.
    pub(super) fn column(self) -> usize {
        match self {
            Self::Single => 0,
        }
    }
}

// === impl World ===

impl World {
    pub(super) async fn start(topology: Topology) -> Self {
        let pods = match topology {
            Topology::Single => 2,
        };
        let mut pod = fast_pod();
        pod.engine.kv_events = false;
        let fleet = Fleet::start(pods + 1, pod).await.expect("free ports exist");
        let addrs: Vec<_> = fleet.pods()[..usize::from(pods)].iter().map(Simulator::addr).collect();
        let mut config = config(&addrs);
        let deadline = ms(u64::try_from(DEADLINE.as_millis()).expect("it is short"));
        config.deadlines.first_byte = deadline;
        config.deadlines.between_bytes = deadline;
        config.retry.budget = 1.0;
        hasten(&mut config);
        Self { house: House::start(config).await, fleet }
    }

    pub(super) async fn end(self) {
        self.house.end().await;
        self.fleet.shutdown().await;
    }

    /// What the client sees of an answer under whose pod the cell's fault happens.
    pub(super) async fn outcome(&self, cell: &Cell) -> String {
        let truth = self.truth().await;
        // Whoever has the prompt gets it again.
        let warm = self.house.post(PATH, &body(false).to_string()).await;
        let victim = warm.header("x-upstream-host").to_owned();
        let victim = self.fleet.pods().iter().find(|pod| pod.addr().to_string() == victim);
        victim.expect("it is one of ours").set_fault(Some(cell.fault));
        let request = post(self.house.addr, PATH, whole(body(cell.is_stream).to_string()));
        let answer = self.house.client.open(request).await;
        let view = within("an answer's end", View::of(answer, cell.is_stream, &truth)).await;
        view.word()
    }

    /// The answer of a pod that nothing happens to.
    async fn truth(&self) -> Truth {
        let sound = self.fleet.pods().last().expect("there is one");
        let client = &self.house.client;
        let answer =
            client.send(sound.addr(), http::Method::POST, PATH, body(false).to_string()).await;
        Truth::of(&answer.json())
    }
}

fn body(is_stream: bool) -> Value {
    let mut body = json!({
        "model": MODEL, "temperature": 0, "max_tokens": 24, "ignore_eos": true,
        "messages": [{"role": "user", "content": "Tell me about the river. ".repeat(20)}],
    });
    if is_stream {
        body["stream"] = true.into();
        body["stream_options"] = json!({"include_usage": true});
    }
    body
}
