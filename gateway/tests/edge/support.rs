//! A gateway over given pods, and the promise that every test ends with: nothing is held any more.

pub(crate) mod client;
pub(crate) mod echo;
pub(crate) mod frames;
pub(crate) mod process;
pub(crate) mod raw_pod;
pub(crate) mod siege;
pub(crate) mod wire;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use gateway::app::App;
use gateway::config::{Config, Loaded, Log};
use gateway::telemetry::LogLevel;
use http::Method;
use loadtest::simulator::{self, Fleet, Simulator};
use router::discovery::StaticEndpoint;
use router::pool::Role;
use router::units::HumanDuration;
use tokio::time::timeout;

use self::client::{Client, Reply};

/// The one model that the pods of these tests serve.
pub(crate) const MODEL: &str = "tiny";

/// Every family with its help, those included that have no sample before their first event.
const FAMILIES: &str = include_str!(
    "../../src/telemetry/metrics/snapshots/\
     gateway__telemetry__metrics__tests__every_family_is_there_with_its_help_and_labels.snap"
);

/// Longest wait for a condition. Only a test that fails waits so long.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running gateway, whose every pod is ready.
pub(crate) struct House {
    pub(crate) app: App,
    pub(crate) addr: SocketAddr,
    pub(crate) client: Client,
}

/// Everything that must be nothing when no request runs.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Held {
    pub(crate) requests: i64,
    pub(crate) body_bytes: i64,
    pub(crate) bookings: i64,
}

/// Settings for a gateway on free ports before these pods.
pub(crate) fn config(pods: &[SocketAddr]) -> Config {
    Config {
        listen: (Ipv4Addr::LOCALHOST, 0).into(),
        admin_listen: (Ipv4Addr::LOCALHOST, 0).into(),
        endpoints: pods.iter().map(|pod| (*pod).into()).collect(),
        log: Log { access: false, ..Log::default() },
        ..Config::default()
    }
}

/// What a gateway waits for before it gives a silent pod up takes tenths of a second, not seconds.
pub(crate) fn hasten(config: &mut Config) {
    config.pool.probe.interval = ms(100);
    config.pool.probe.retry_interval = ms(20);
    config.pool.probe.timeout = ms(1_000);
    config.pool.engine_metrics.interval = ms(50);
    config.pool.health.still_after = ms(1_000);
    config.pool.health.ejected_min = ms(20);
    config.pool.health.ejected_max = ms(100);
    config.survive.silence.doubt_after = ms(200);
    config.survive.silence.stall_floor = ms(1_000);
}

/// A gateway before simulated pods of these roles, which takes whatever is new in a prompt to be worth
/// a transfer, and whose retries have no budget to keep to.
pub(crate) fn config_of(fleet: &Fleet, roles: &[Role]) -> Config {
    let mut config = config(&[]);
    let with_role =
        |(pod, role): (&Simulator, &Role)| StaticEndpoint::from(pod.addr()).with_role(*role);
    config.endpoints = fleet.pods().iter().zip(roles).map(with_role).collect();
    (config.split.min_uncached_tokens, config.split.stall) = (Some(64), 1e9);
    config.retry.budget = 1.0;
    hasten(&mut config);
    config
}

pub(crate) fn ms(millis: u64) -> HumanDuration {
    HumanDuration::from_millis(millis)
}

/// A simulated pod so fast that nobody waits.
pub(crate) fn fast_pod() -> simulator::Config {
    let engine = simulator::EngineConfig {
        prefill_tokens_per_s: 1e9,
        decode_ms: 0.0,
        decode_ms_per_seq: 0.001,
        ..simulator::EngineConfig::default()
    };
    simulator::Config { model: MODEL.to_owned(), engine, ..simulator::Config::default() }
}

/// A simulated pod whose prefill takes for ever.
pub(crate) fn frozen_pod() -> simulator::Config {
    let mut config = fast_pod();
    config.engine.prefill_tokens_per_s = 0.001;
    config
}

pub(crate) async fn simulate(config: simulator::Config) -> Simulator {
    Simulator::start(config).await.expect("a free port exists")
}

/// Waits for a condition that another task brings about.
pub(crate) async fn within<T>(what: &str, condition: impl Future<Output = T>) -> T {
    timeout(PATIENCE, condition).await.unwrap_or_else(|_| panic!("waited in vain: {what}"))
}

// === impl House ===

impl House {
    /// A gateway with the usual settings.
    pub(crate) async fn over(pods: &[SocketAddr]) -> Self {
        Self::start(config(pods)).await
    }

    /// A gateway; returns when all its pods are ready.
    pub(crate) async fn start(config: Config) -> Self {
        let pods = config.endpoints.len();
        let house = Self::start_unready(config).await;
        house.ready(pods).await;
        house
    }

    /// Waits until so many pods are ready.
    pub(crate) async fn ready(&self, pods: usize) {
        let pool = self.app.router.pool();
        let mut changed = pool.changed();
        let ready = async {
            loop {
                let ready = pool.snapshot().endpoints.iter().filter(|pod| pod.is_ready()).count();
                if ready == pods {
                    return;
                }
                changed.changed().await.expect("the pool lives as long as the gateway");
            }
        };
        within("the pods are ready", ready).await;
    }

    /// A gateway; its pods may never be ready.
    pub(crate) async fn start_unready(config: Config) -> Self {
        let loaded = Loaded { hash: config.hash(), config, origins: BTreeMap::new() };
        let app = App::start(loaded, LogLevel::default()).await.expect("the settings are good");
        Self { addr: app.addr, app, client: Client::default() }
    }

    /// Sends JSON to a path.
    pub(crate) async fn post(&self, path: &str, body: &str) -> Reply {
        self.client.send(self.addr, Method::POST, path, body.to_owned()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.client.send(self.addr, Method::GET, path, "").await
    }

    /// A metric's samples, added up.
    pub(crate) async fn metric(&self, name: &str) -> i64 {
        metric(&self.client, self.app.admin_addr, name).await
    }

    /// Waits until nothing is held.
    pub(crate) async fn at_rest(&self) {
        at_rest(&self.client, self.app.admin_addr).await;
    }

    /// Waits until nothing is held, and stops.
    pub(crate) async fn end(self) {
        self.at_rest().await;
        let booked = self.app.router.bookings().totals();
        assert_eq!((booked.requests, booked.prefill_tokens), (0, 0), "bookings are given back");
        self.app.stop().await.expect("no task panicked");
    }
}

/// A metric's samples, added up; `name` may hold the beginning of its labels. One of which there is no
/// sample yet is 0, but a name that no family has is a mistake of the test's.
pub(crate) async fn metric(client: &Client, admin: SocketAddr, name: &str) -> i64 {
    let page = client.send(admin, Method::GET, "/metrics", "").await;
    let family = name.split('{').next().unwrap_or_default();
    let family = family.strip_suffix("_count").unwrap_or(family);
    let helped = format!("# HELP {family} ");
    let is_known = page.text().contains(&helped) || FAMILIES.contains(&helped);
    assert!(is_known, "no metric is called {family}");
    let samples = page.text().lines().filter(|line| line.starts_with(name)).map(value);
    samples.sum()
}

/// Waits until the gateway with this admin address holds nothing.
pub(crate) async fn at_rest(client: &Client, admin: SocketAddr) {
    let resting = async {
        // Each round is a real round trip to the admin listener: no clock, no busy loop.
        while held(client, admin).await != Held::default() {}
    };
    if timeout(PATIENCE, resting).await.is_err() {
        panic!("still held: {:?}", held(client, admin).await);
    }
}

async fn held(client: &Client, admin: SocketAddr) -> Held {
    Held {
        requests: gauge(client, admin, "hearth_requests_in_flight").await,
        body_bytes: gauge(client, admin, "hearth_request_body_bytes_held").await,
        bookings: gauge(client, admin, "hearth_bookings").await,
    }
}

/// A metric that is always there: one that is not is misspelt, and not zero.
async fn gauge(client: &Client, admin: SocketAddr, name: &str) -> i64 {
    let page = client.send(admin, Method::GET, "/metrics", "").await;
    let typed = format!("# TYPE {name} gauge");
    assert!(page.text().lines().any(|line| line == typed), "no gauge is called {name}");
    metric(client, admin, name).await
}

fn value(sample: &str) -> i64 {
    let value = sample.rsplit(' ').next().unwrap_or_default();
    value.parse().unwrap_or_else(|_| panic!("a sample without a value: {sample}"))
}
