//! What a step costs the harness alone: rules, journal and budgets around a sandbox that answers at once. The budget is
//! 10,000 steps in a second.
#![expect(missing_docs, reason = "criterion's macros make functions without any")]
#![expect(clippy::unwrap_used, reason = "a bench that cannot be set up must fail")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mlgym::{Action, Allowed, Environment, Episode, EpisodeSetup, Ground, ReadyTask, Recorder};
use mlgym_journal::{AgentName, Budgets, Digest, EpisodeId, EpisodePlan, Home, JournalWriter, RunId};
use mlgym_sandbox::image::ResolvedImage;
use mlgym_sandbox::{
    Backend, Captured, Command, CommandEnd, CommandOutput, EngineFacts, FileSource, JobReport, Mishap,
    Sandbox, SandboxError, SandboxId, SandboxSpec, SandboxSummary, Snapshot, SnapshotId, SnapshotSummary,
    TransferCaps, Transferred,
};
use mlgym_tasks::{PreparedData, Task};
use tokio_util::sync::CancellationToken;

/// Answers every command at once with nothing.
#[derive(Debug)]
struct Nothing(SandboxId);

fn absent(id: &SandboxId) -> SandboxError {
    SandboxError::Lost { id: id.clone(), reason: "it only answers commands".to_owned() }
}

#[async_trait]
impl Sandbox for Nothing {
    fn id(&self) -> &SandboxId {
        &self.0
    }

    fn isolation(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    async fn shell(&mut self, _: &Command, _: &CancellationToken) -> Result<CommandOutput, SandboxError> {
        Ok(CommandOutput {
            end: CommandEnd::Exited(0),
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

#[derive(Debug)]
struct Nowhere;

#[async_trait]
impl Backend for Nowhere {
    fn name(&self) -> &str {
        "nowhere"
    }

    async fn facts(&self) -> Result<EngineFacts, SandboxError> {
        Err(absent(&SandboxId("none".to_owned())))
    }

    async fn create(&self, _: &SandboxSpec) -> Result<Box<dyn Sandbox>, SandboxError> {
        Ok(Box::new(Nothing(SandboxId("nothing".to_owned()))))
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

/// An episode without any budget, on a task of nothing.
fn episode(directory: &Path) -> Episode {
    let task = directory.join("task");
    std::fs::create_dir_all(task.join("tests")).unwrap();
    std::fs::write(task.join("tests/test.sh"), "true").unwrap();
    std::fs::write(task.join("instruction.md"), "Nothing.").unwrap();
    let text = "[environment]\ndocker_image = \"mlgym/base\"\n[metadata.mlgym]\nsubmission = \"x\"\n\
                metrics = [{ name = \"m\", goal = \"maximize\", baseline = 0.0, reference = 1.0 }]\n";
    std::fs::write(task.join("task.toml"), text).unwrap();
    let task = Arc::new(Task::load(&task).unwrap());
    let home = Home::open(directory.join("home")).unwrap();
    let (run, agent) = (RunId::new("bench").unwrap(), AgentName::new("bench").unwrap());
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
    let journal = JournalWriter::open(&home.journal(&run, &plan.episode)).unwrap();
    let image = ResolvedImage { name: "x".into(), reference: "x".into(), digest: "x".into() };
    let (public, private) = (directory.join("public"), directory.join("private"));
    let data = PreparedData { public, private, digest: Digest::of(b"") };
    Episode::new(EpisodeSetup {
        recorder: Recorder::new(plan.episode.clone(), journal, None),
        ground: Ground {
            home,
            run,
            plan,
            ready: Arc::new(ReadyTask { task, image, data, repository: None }),
            backend: Arc::new(Nowhere),
            allowed: Allowed::default(),
            gpus: None,
        },
        cancel: CancellationToken::new(),
        warm: None,
    })
}

fn steps(c: &mut Criterion) {
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut episode = episode(directory.path());
    runtime.block_on(episode.reset(0)).unwrap();
    let mut group = c.benchmark_group("harness");
    group.throughput(Throughput::Elements(1));
    group.bench_function("a no-op step without a container", |bench| {
        bench.iter(|| runtime.block_on(episode.step(Action::shell(":"))).unwrap());
    });
    group.finish();
}

criterion_group!(benches, steps);
criterion_main!(benches);
