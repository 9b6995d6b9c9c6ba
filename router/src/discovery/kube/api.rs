//! The client of the API server, and what its errors mean.

use std::sync::Arc;
use std::time::Duration;

use http::Response;
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::Pod;
use kube::client::{ClientBuilder, DynBody};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher;
use kube::{Api, Client, Config};
use tokio::sync::Notify;
use tower::timeout::TimeoutLayer;
use tower::util::MapResponseLayer;

use super::KubernetesSettings;
use crate::story::story;

/// A client, and the pods of one namespace.
pub(super) struct Connected {
    pub(super) client: Client,
    pub(super) pods: Api<Pod>,
    pub(super) namespace: String,
    /// Notified whenever the API server answers well or sends more of such an answer. The watcher
    /// swallows bookmarks and renewals, which are all that a quiet namespace has to say.
    pub(super) heard: Arc<Notify>,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("{0}")]
    Infer(#[from] kube::config::InferConfigError),
    #[error("{0}")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    #[error("{0}")]
    Client(#[from] kube::Error),
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// So late the head of an answer may come. Behind an etcd that hangs the API server says 504 after
/// 60 s, and a hand-shake with a stopped one never ends: who asks again sooner is back sooner.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// A watch that sends nothing for so long after it would have been renewed is dead.
const READ_MARGIN: Duration = Duration::from_secs(10);
/// "The resourceVersion is too old": ordinary after a pause; a new list follows by itself.
const GONE: u16 = 410;

pub(super) async fn connect(settings: &KubernetesSettings) -> Result<Connected, ConnectError> {
    crate::tls::install_provider();
    let mut config = match &settings.kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path)?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?
        }
        None => Config::infer().await?,
    };
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(settings.watch_timeout.get() + READ_MARGIN);
    // The client's own retries wait up to minutes and say nothing; `Backoff` waits seconds.
    config.default_retry = false;
    let namespace = settings.namespace.clone().unwrap_or(config.default_namespace.clone());

    let heard = Arc::new(Notify::new());
    let notify = Arc::clone(&heard);
    let listen = MapResponseLayer::new(move |response: Response<Box<DynBody>>| {
        let heard = response.status().is_success().then(|| Arc::clone(&notify));
        if let Some(heard) = &heard {
            heard.notify_one();
        }
        response.map(|body| {
            body.map_frame(move |frame| {
                if let Some(heard) = &heard {
                    heard.notify_one();
                }
                frame
            })
        })
    });
    let client = ClientBuilder::try_from(config)?
        .with_layer(&TimeoutLayer::new(ANSWER_TIMEOUT))
        .with_layer(&listen)
        .build();
    let pods = Api::namespaced(client.clone(), &namespace);
    Ok(Connected { client, pods, namespace, heard })
}

/// Whether the API server refuses the watch itself. kube would ask from the same version again,
/// for ever if the server no longer has that (restored, compacted, its cache off).
pub(super) fn refuses_watch(error: &watcher::Error) -> bool {
    matches!(
        error,
        watcher::Error::WatchStartFailed(kube::Error::Api(_)) | watcher::Error::WatchError(_)
    )
}

/// The error in an operator's words; none if it is no failure of the API server.
pub(super) fn explain(error: &watcher::Error, namespace: &str) -> Option<String> {
    let status = match error {
        watcher::Error::WatchError(status) => Some(status.as_ref()),
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status)) => Some(status.as_ref()),
        _ => None,
    };
    match status.map(|status| (status.code, &status.message)) {
        Some((GONE, _)) => None,
        Some((403, message)) => Some(format!(
            "RBAC: the API server forbids the gateway to get, list and watch pods in namespace \
             `{namespace}`; bind its ServiceAccount to a Role that allows it ({message})"
        )),
        Some((401, message)) => {
            Some(format!("the API server does not accept the gateway's credentials ({message})"))
        }
        Some((404, message)) => {
            Some(format!("there are no pods in namespace `{namespace}` to watch ({message})"))
        }
        _ => Some(story(error)),
    }
}
