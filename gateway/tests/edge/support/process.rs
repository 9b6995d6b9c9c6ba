//! The program itself, as a cluster runs it.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::oneshot;

use super::client::Client;
use super::within;

/// A running `hearth serve` or `hearth epp`; it is killed with this.
pub(crate) struct Process {
    child: Child,
    log_ends: oneshot::Receiver<()>,
    /// What it has written so far: its own log and the access log.
    said: Arc<Mutex<String>>,
    pub(crate) addr: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) client: Client,
}

// === impl Process ===

impl Process {
    /// Starts it before these pods; returns when one of them is ready.
    pub(crate) async fn serve(pods: &[SocketAddr], flags: &[&str]) -> Self {
        Self::start(["serve", "--listen"], pods, flags).await
    }

    /// The same as the picker of an Envoy.
    pub(crate) async fn epp(pods: &[SocketAddr], flags: &[&str]) -> Self {
        Self::start(["epp", "--epp-listen"], pods, flags).await
    }

    async fn start(door: [&str; 2], pods: &[SocketAddr], flags: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hearth"));
        command.args(door).args(["127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
        command.args(["--log-format", "json"]).args(flags);
        for pod in pods {
            command.args(["--endpoints", &pod.to_string()]);
        }
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let log = child.stderr.take().expect("it is piped");
        let requests = child.stdout.take().expect("it is piped");
        let (tell, listens) = oneshot::channel();
        let (ends, log_ends) = oneshot::channel();
        let said = Arc::<Mutex<String>>::default();
        let (of_log, of_requests) = (Arc::clone(&said), Arc::clone(&said));
        let requests = thread::spawn(move || read(requests, &of_requests, None));
        thread::spawn(move || {
            read(log, &of_log, Some(tell));
            requests.join().expect("it only reads");
            // On an error the test is over.
            ends.send(()).unwrap_or_default();
        });
        let (addr, admin) = within("it listens", listens).await.expect("it starts");
        let process = Self { child, log_ends, said, addr, admin, client: Client::default() };
        within("it is ready", async { while process.readyz().await != 200 {} }).await;
        process
    }

    pub(crate) async fn readyz(&self) -> u16 {
        let reply = self.client.send(self.admin, http::Method::GET, "/readyz", "").await;
        reply.status.as_u16()
    }

    /// Sends a signal by its name: `TERM`, `INT`.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status();
        assert!(status.expect("`kill` exists").success());
    }

    /// Waits for its end: its log ends with it.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        within("it ends", &mut self.log_ends).await.expect("the log was read to its end");
        self.child.wait().expect("it can be waited for")
    }

    /// What it has written so far.
    pub(crate) fn said(&self) -> String {
        self.said.lock().clone()
    }

    /// The access log's lines for this path.
    pub(crate) fn requests(&self, path: &str) -> Vec<Value> {
        let lines = self.said();
        let lines = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["path"] == path).collect()
    }

    /// Memory in use, in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        kib.and_then(|kib| kib.trim().parse::<u64>().ok()).expect("a size in kB") << 10
    }

    /// Open files and sockets.
    pub(crate) fn descriptors(&self) -> usize {
        let files = std::fs::read_dir(format!("/proc/{}/fd", self.child.id()));
        files.expect("it runs").count()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An error means that it has ended already, which is what is wanted.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Keeps every line, tells the two addresses when a line says them, and reads on, so that the
/// program never waits for its log.
fn read(
    log: impl Read,
    said: &Mutex<String>,
    mut tell: Option<oneshot::Sender<(SocketAddr, SocketAddr)>>,
) {
    for line in BufReader::new(log).lines().map_while(Result::ok) {
        let mut said = said.lock();
        said.push_str(&line);
        said.push('\n');
        if let Some(addresses) = addresses(&line)
            && let Some(tell) = tell.take()
        {
            tell.send(addresses).expect("the test waits for them");
        }
    }
}

fn addresses(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let line: Value = serde_json::from_str(line).ok()?;
    let fields = line.get("fields").unwrap_or(&line);
    let address = |key: &str| fields[key].as_str()?.parse().ok();
    Some((address("addr")?, address("admin_addr")?))
}
