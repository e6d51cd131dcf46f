//! What commands share: the home, the engine, and the way to stop.

use std::path::PathBuf;
use std::sync::Arc;

use mlgym::Stage;
use mlgym::episode::run_labels;
use mlgym_journal::{Home, RunId};
use mlgym_leaderboard::Leaderboard;
use mlgym_sandbox::Backend;
use mlgym_sandbox::docker::{DockerBackend, EngineKind, EngineOptions};
use mlgym_sandbox::image::{ImageBuilder, ImageProgress};
use tokio_util::sync::CancellationToken;

use crate::failure::{Failure, Kind};
use crate::output::{Output, say};
use crate::progress::Progress;

/// What makes the sandboxes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum BackendName {
    /// A Docker engine, at `DOCKER_HOST` or the default socket
    Docker,
    /// Podman's service, at `CONTAINER_HOST` or its usual sockets
    Podman,
}

/// What the user accepts of a sandbox that is less closed than usual.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Allowance {
    /// Memory, processes or processor time that the host cannot limit
    Unlimited,
}

/// One invocation of the program.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    /// `--home`, `MLGYM_HOME`, or nothing.
    pub(crate) home: Option<PathBuf>,
    /// What makes the sandboxes.
    pub(crate) backend: BackendName,
    /// What the engine starts containers with.
    pub(crate) runtime: Option<String>,
    /// What the user accepts.
    pub(crate) allow: Vec<Allowance>,
    /// Where results go.
    pub(crate) output: Output,
    /// Fires at Ctrl-C.
    pub(crate) cancel: CancellationToken,
}

/// The engine with all that makes tasks ready on it.
#[derive(Debug, Clone)]
pub(crate) struct Engine {
    pub(crate) docker: DockerBackend,
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) images: ImageBuilder,
}

impl Session {
    /// Opens the home.
    pub(crate) fn home(&self) -> Result<Home, Failure> {
        let root = match &self.home {
            Some(home) => home.clone(),
            None => default_home().ok_or_else(|| {
                Failure::message(Kind::Environment, "find a home directory: set MLGYM_HOME or use --home")
            })?,
        };
        let root = std::path::absolute(&root).unwrap_or(root);
        Ok(Home::open(root)?)
    }

    /// Opens the home's leaderboard.
    pub(crate) async fn leaderboard(&self, home: &Home) -> Result<Leaderboard, Failure> {
        Ok(Leaderboard::open(&home.database()).await?)
    }

    /// Connects to the engine.
    pub(crate) async fn engine(&self, progress: &Progress) -> Result<Engine, Failure> {
        let docker = self.docker().await?;
        let progress = progress.clone();
        let sink = Arc::new(move |event: ImageProgress| progress.image(&event));
        let images = ImageBuilder::new(&docker, sink, self.cancel.clone());
        Ok(Engine { backend: Arc::new(docker.clone()), docker, images })
    }

    /// Connects to the engine that the command line names.
    pub(crate) async fn docker(&self) -> Result<DockerBackend, Failure> {
        let kind = match self.backend {
            BackendName::Docker => EngineKind::Docker,
            BackendName::Podman => EngineKind::Podman,
        };
        let options = EngineOptions {
            kind,
            runtime: self.runtime.clone(),
            allow_unlimited: self.allow.contains(&Allowance::Unlimited),
        };
        Ok(DockerBackend::connect(options).await?)
    }

    /// Removes what killed runs left behind, and says so.
    pub(crate) async fn reap(&self, engine: &Engine, home: &Home) -> Result<(), Failure> {
        let removed = mlgym::reaper::reap(engine.backend.as_ref(), home).await?;
        if removed > 0 {
            say(format!("removed {removed} containers that an earlier run left behind"));
        }
        Ok(())
    }

    /// Makes the stage of a run.
    pub(crate) fn stage(&self, engine: &Engine, home: &Home, run: &RunId) -> Stage {
        let labels = run_labels(home, run, "prepare");
        Stage::new(engine.images.clone(), home, engine.backend.clone(), labels, self.cancel.clone())
    }

    /// Makes the id of a run that starts now.
    pub(crate) fn new_run() -> RunId {
        let mut entropy = [0_u8; 2];
        // Without a random source two runs of the same second would differ by their process.
        if getrandom::fill(&mut entropy).is_err() {
            entropy.copy_from_slice(&std::process::id().to_le_bytes()[..2]);
        }
        RunId::from_parts(jiff::Timestamp::now(), u16::from_le_bytes(entropy))
    }
}

/// The XDG data directory's `mlgym`.
fn default_home() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let data = set("XDG_DATA_HOME").filter(|path| path.is_absolute());
    Some(data.or_else(|| Some(set("HOME")?.join(".local/share")))?.join("mlgym"))
}
