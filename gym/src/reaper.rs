//! Removes the sandboxes that killed runs left behind, and never another live run's.

use std::collections::BTreeMap;

use mlgym_journal::run::{RunError, RunLock};
use mlgym_journal::{Home, RunId};
use mlgym_sandbox::{Backend, SandboxError};

use crate::episode::run_labels;

/// Says why the left-behind sandboxes could not be removed.
#[derive(Debug, thiserror::Error)]
pub enum ReapError {
    /// The engine failed.
    #[error("remove the sandboxes that earlier runs left behind")]
    Sandbox(#[from] SandboxError),
    /// A run's lock could not be looked at.
    #[error("tell whether an earlier run is still alive")]
    Run(#[from] RunError),
}

/// Removes the sandboxes of this home whose run no live process holds; returns their number.
pub async fn reap(backend: &dyn Backend, home: &Home) -> Result<usize, ReapError> {
    // The home's label is that of any run of it.
    let labels = run_labels(home, &RunId::from_parts(jiff::Timestamp::UNIX_EPOCH, 0), "");
    let filter: BTreeMap<_, _> = labels.into_iter().filter(|(key, _)| key == "mlgym.home").collect();
    let mut removed = 0;
    for sandbox in backend.list(&filter).await? {
        let run = sandbox.labels.get("mlgym.run").and_then(|run| RunId::new(run.clone()).ok());
        let is_held = match run {
            Some(run) => RunLock::is_held(home, &run)?,
            None => false,
        };
        if !is_held {
            backend.remove(&sandbox.id).await?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Removes whatever sandboxes a run has left; returns their number.
pub async fn remove_run(backend: &dyn Backend, home: &Home, run: &RunId) -> Result<usize, ReapError> {
    let filter: BTreeMap<_, _> =
        run_labels(home, run, "").into_iter().filter(|(key, _)| key != "mlgym.role").collect();
    let found = backend.list(&filter).await?;
    for sandbox in &found {
        backend.remove(&sandbox.id).await?;
    }
    Ok(found.len())
}
