//! A sandbox whose repository is checked out for ever, unless somebody stops it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use mlgym_journal::{AgentName, Budgets, Digest, EpisodePlan, Home, RunId};
use mlgym_sandbox::image::ResolvedImage;
use mlgym_sandbox::{
    Backend, Captured, Command, CommandEnd, CommandOutput, EngineFacts, FileSource, JobReport, Mishap,
    SandboxError, SandboxId, SandboxSpec, SandboxSummary, Snapshot, SnapshotId, SnapshotSummary,
    TransferCaps, Transferred,
};
use mlgym_tasks::{PreparedData, Task};
use tokio::sync::Notify;

use super::*;
use crate::episode::Allowed;
use crate::ready::ReadyTask;

/// Runs a command until it is interrupted, and tells when it has begun.
#[derive(Debug)]
struct Endless(SandboxId, Arc<Notify>);

fn absent(id: &SandboxId) -> SandboxError {
    SandboxError::Lost { id: id.clone(), reason: "it only answers commands".to_owned() }
}

#[async_trait]
impl Sandbox for Endless {
    fn id(&self) -> &SandboxId {
        &self.0
    }

    fn isolation(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    async fn shell(
        &mut self,
        _: &Command,
        cancel: &CancellationToken,
    ) -> Result<CommandOutput, SandboxError> {
        self.1.notify_one();
        cancel.cancelled().await;
        Ok(CommandOutput {
            end: CommandEnd::Interrupted,
            stdout: Captured::default(),
            stderr: Captured::default(),
            duration: Duration::ZERO,
            shell_restarted: false,
        })
    }

    async fn spawn(&mut self, _: &str) -> Result<String, SandboxError> {
        Err(absent(&self.0))
    }

    async fn wait(&mut self, _: &str, _: Duration) -> Result<JobReport, SandboxError> {
        Ok(JobReport::Unknown)
    }

    async fn interrupt(&mut self, _: &str) -> Result<JobReport, SandboxError> {
        Ok(JobReport::Unknown)
    }

    fn mishaps(&mut self) -> Vec<Mishap> {
        Vec::new()
    }

    async fn put(&mut self, _: &str, _: FileSource) -> Result<(), SandboxError> {
        Ok(())
    }

    async fn get(&mut self, _: &str, _: &Path, _: TransferCaps) -> Result<Transferred, SandboxError> {
        Err(absent(&self.0))
    }

    async fn snapshot(&mut self) -> Result<Snapshot, SandboxError> {
        Err(absent(&self.0))
    }

    async fn halt(&mut self) -> Result<(), SandboxError> {
        Ok(())
    }

    async fn destroy(self: Box<Self>) -> Result<(), SandboxError> {
        Ok(())
    }
}

/// Makes such sandboxes.
#[derive(Debug, Default)]
struct Nowhere(Arc<Notify>);

#[async_trait]
impl Backend for Nowhere {
    fn name(&self) -> &str {
        "nowhere"
    }

    async fn facts(&self) -> Result<EngineFacts, SandboxError> {
        Err(absent(&SandboxId("none".to_owned())))
    }

    async fn create(&self, _: &SandboxSpec) -> Result<Box<dyn Sandbox>, SandboxError> {
        Ok(Box::new(Endless(SandboxId("endless".to_owned()), self.0.clone())))
    }

    async fn restore(&self, spec: &SandboxSpec, _: &Snapshot) -> Result<Box<dyn Sandbox>, SandboxError> {
        self.create(spec).await
    }

    async fn snapshots(&self, _: &BTreeMap<String, String>) -> Result<Vec<SnapshotSummary>, SandboxError> {
        Ok(Vec::new())
    }

    async fn remove_snapshot(&self, _: &SnapshotId) -> Result<(), SandboxError> {
        Ok(())
    }

    async fn list(&self, _: &BTreeMap<String, String>) -> Result<Vec<SandboxSummary>, SandboxError> {
        Ok(Vec::new())
    }

    async fn remove(&self, _: &SandboxId) -> Result<(), SandboxError> {
        Ok(())
    }

    async fn sweep(&self) -> Result<(), SandboxError> {
        Ok(())
    }
}

/// An episode on a task with a repository.
fn ground(directory: &Path, backend: Arc<dyn Backend>) -> Ground {
    let task = directory.join("task");
    std::fs::create_dir_all(task.join("tests")).unwrap();
    std::fs::write(task.join("tests/test.sh"), "true").unwrap();
    std::fs::write(task.join("instruction.md"), "Nothing.").unwrap();
    std::fs::write(task.join("task.toml"), "[environment]\ndocker_image = \"mlgym/base\"\n").unwrap();
    let task = Arc::new(Task::load(&task).unwrap());
    let (run, agent) = (RunId::new("warm").unwrap(), AgentName::new("warm").unwrap());
    let plan = EpisodePlan {
        episode: EpisodeId::of(&agent, &task.name, 0).unwrap(),
        task: task.name.clone(),
        task_dir: task.dir.clone(),
        task_digest: task.digest.clone(),
        agent,
        seed: 0,
        budgets: Budgets::default(),
        model: None,
        options: serde_json::Map::new(),
    };
    let image = ResolvedImage { name: "x".into(), reference: "x".into(), digest: "x".into() };
    let (public, private) = (directory.join("public"), directory.join("private"));
    let data = PreparedData { public, private, digest: Digest::of(b"") };
    let repository = Some(directory.join("repository"));
    Ground {
        home: Home::open(directory.join("home")).unwrap(),
        run,
        plan,
        ready: Arc::new(ReadyTask { task, image, data, repository }),
        backend,
        allowed: Allowed::default(),
        gpus: None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_stopped_run_does_not_wait_for_a_repository_that_is_checked_out_ahead() {
    let directory = tempfile::tempdir().unwrap();
    let backend = Nowhere::default();
    let begun = backend.0.clone();
    let ground = ground(directory.path(), Arc::new(backend));
    let episode = ground.plan.episode.clone();
    let stop = CancellationToken::new();
    let queue = WarmQueue::new(stop.clone(), [ground]);
    queue.start_next();
    let warm = queue.begin(&episode).unwrap();
    begun.notified().await;
    stop.cancel();
    let taken = tokio::time::timeout(Duration::from_secs(1), warm.take()).await;
    assert!(taken.expect("the checkout goes on").is_none());
}
