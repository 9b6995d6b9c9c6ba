//! A gateway before a few simulated pods, one of which fails.

use std::time::Duration;

use loadtest::simulator::{Connector, Fault, Fleet};
use router::pool::Role;
use serde_json::{Value, json};

use super::table::Cell;
use super::view::{Truth, View};
use crate::support::client::{post, whole};
use crate::support::{House, MODEL, config_of, fast_pod, ms, within};

/// Which pods there are, and which of them fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Topology {
    /// Two pods that do everything.
    Single,
    /// Two pods that prefill, of which one fails, and two that decode.
    Prefill,
    /// The same, and one that decodes fails.
    Decode,
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

/// How often the same is said in the request that is looked at, and in one that came before.
const WHOLE: usize = 60;
const BEGINNING: usize = 30;

const PATH: &str = "/v1/chat/completions";

// === impl Topology ===

impl Topology {
    /// The first of its two columns in the table.
    pub(super) fn column(self) -> usize {
        match self {
            Self::Single => 0,
            Self::Prefill => 2,
            Self::Decode => 4,
        }
    }

    /// What the pods behind the gateway are for.
    fn roles(self) -> &'static [Role] {
        match self {
            Self::Single => &[Role::Both, Role::Both],
            Self::Prefill | Self::Decode => {
                &[Role::Prefill, Role::Prefill, Role::Decode, Role::Decode]
            }
        }
    }
}

// === impl World ===

impl World {
    pub(super) async fn start(topology: Topology) -> Self {
        let roles = topology.roles();
        let mut pod = fast_pod();
        pod.engine.kv_events = false;
        if topology != Topology::Single {
            pod.transfer.connector = Some(Connector::Nixl);
        }
        let count = u16::try_from(roles.len() + 1).expect("few");
        let fleet = Fleet::start(count, pod).await.expect("free ports exist");
        let mut config = config_of(&fleet, roles);
        let deadline = ms(u64::try_from(DEADLINE.as_millis()).expect("it is short"));
        config.deadlines.first_byte = deadline;
        config.deadlines.between_bytes = deadline;
        Self { house: House::start(config).await, fleet }
    }

    pub(super) async fn end(self) {
        self.house.end().await;
        self.fleet.shutdown().await;
    }

    /// What the client sees of an answer under whose pod the cell's fault happens. `None`: another pod
    /// was asked, so that it did not happen.
    pub(super) async fn outcome(&self, cell: &Cell) -> Option<String> {
        let truth = self.truth().await;
        // Whoever has its beginning gets the rest of it, too.
        let warm = self.house.post(PATH, &body(BEGINNING, false).to_string()).await;
        let victim = match cell.topology {
            Topology::Single | Topology::Decode => warm.header("x-upstream-host").to_owned(),
            Topology::Prefill => prefilled_by(warm.header("x-hearth-decision")),
        };
        let victim = self.fleet.pods().iter().find(|pod| pod.addr().to_string() == victim);
        let victim = victim.expect("it is one of ours");
        let before = victim.requests().len();
        victim.set_fault(Some(cell.fault));
        let request = post(self.house.addr, PATH, whole(body(WHOLE, cell.is_stream).to_string()));
        let answer = self.house.client.open(request).await;
        let view = within("an answer's end", View::of(answer, cell.is_stream, &truth)).await;
        let is_met = !matches!(cell.fault, Fault::Break { .. }) || victim.requests().len() > before;
        is_met.then(|| view.word())
    }

    /// The answer of a pod that nothing happens to.
    async fn truth(&self) -> Truth {
        let sound = self.fleet.pods().last().expect("there is one");
        let client = &self.house.client;
        let answer = client
            .send(sound.addr(), http::Method::POST, PATH, body(WHOLE, false).to_string())
            .await;
        Truth::of(&answer.json())
    }
}

/// The pod that prefilled, of `x-hearth-decision`.
fn prefilled_by(decision: &str) -> String {
    let by = decision.split("prefill=\"").nth(1).and_then(|rest| rest.split('"').next());
    by.unwrap_or_else(|| panic!("not split: {decision}")).to_owned()
}

fn body(times: usize, is_stream: bool) -> Value {
    let mut body = json!({
        "model": MODEL, "temperature": 0, "max_tokens": 24, "ignore_eos": true,
        "messages": [{"role": "user", "content": "Tell me about the river. ".repeat(times)}],
    });
    if is_stream {
        body["stream"] = true.into();
        body["stream_options"] = json!({"include_usage": true});
    }
    body
}
