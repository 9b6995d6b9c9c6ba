//! `grpc.health.v1`: serving while requests should be sent here, as `/readyz` says it.

use std::sync::Arc;

use router::Router;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::drain::{Drain, Phase};
use crate::readiness::reasons;

/// The names under which probes and Envoys ask, those of an Endpoint Picker.
const SERVICES: [&str; 4] =
    ["", "liveness", "readiness", "envoy.service.ext_proc.v3.ExternalProcessor"];

/// Who is only asked whether the process lives.
const LIVENESS: &str = "liveness";

/// Tells the health service how it stands, again and again.
pub(super) async fn tell(reporter: HealthReporter, router: Arc<Router>, drain: Drain) {
    let mut pods = router.pool().changed();
    loop {
        pods.mark_unchanged();
        let phase = drain.phase();
        let is_ready = reasons(&router.pool().snapshot(), phase).next().is_none();
        for service in SERVICES {
            let status = match is_ready || service == LIVENESS {
                true => ServingStatus::Serving,
                false => ServingStatus::NotServing,
            };
            reporter.set_service_status(service, status).await;
        }
        tokio::select! {
            Ok(()) = pods.changed() => {}
            () = drain.reached(Phase::Lingering), if phase < Phase::Lingering => {}
            // A pool that has ended changes no more, and nor does a drain.
            else => return,
        }
    }
}
