//! Why a request was not routed.

use crate::openai::BadBody;

/// Why a request was not routed. The metric's label and what the client sees are decided in the
/// gateway's one table.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The body cannot be read.
    #[error(transparent)]
    Body(#[from] BadBody),
    /// No pod lists this model.
    #[error("The model `{model}` does not exist.")]
    NoSuchModel {
        /// The name that was asked for.
        model: String,
    },
    /// The body names no model and there is more than one.
    #[error("you must provide a model parameter, one of: {}", names.join(", "))]
    ModelMissing {
        /// The names that pods list.
        names: Vec<String>,
    },
    /// No pod that serves the model is ready.
    #[error("no pod that serves this model is ready")]
    NoReadyPod,
    /// Every pod that serves the model has as many requests as it may have.
    #[error("every pod that serves this model is busy")]
    Full,
    /// Every pod that serves the model was tried already.
    #[error("every pod that serves this model was tried")]
    AllTried,
}
