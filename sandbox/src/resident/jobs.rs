//! Background jobs: programs beside the shell, each followed by a task that collects what it prints.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::backend::{CommandOutputSoFar, JobReport, SandboxError};
use crate::capture::{Capture, CaptureLimits};
use crate::resident::container::{Attached, Container, Program};
use crate::spec::{CommandEnd, CommandOutput};

/// How long a job's shell may take to read what it is to do.
const START_TIME: Duration = Duration::from_secs(20);

/// So many jobs may run at once, each with its spools on the host.
pub(crate) const MOST: usize = 32;

/// How much of each output of a job is kept whole.
const SPOOL: u64 = 8 << 20;

/// A job's exit code and how long it ran.
type Ended = (i32, Duration);

/// The jobs of one container, by name.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    jobs: BTreeMap<String, Job>,
    pumps: JoinSet<()>,
}

#[derive(Debug)]
struct Job {
    outputs: Arc<Mutex<(Capture, Capture)>>,
    ended: watch::Receiver<Option<Ended>>,
    interrupted: bool,
}

impl Jobs {
    /// The next job's name.
    pub(crate) fn next_name(&self) -> String {
        format!("job{}", self.jobs.len() + 1)
    }

    /// The names of the jobs that run.
    pub(crate) fn living(&self) -> Vec<String> {
        let runs = |job: &Job| job.ended.borrow().is_none();
        self.jobs.iter().filter(|(_, job)| runs(job)).map(|(name, _)| name.clone()).collect()
    }

    /// Starts a program that runs `script` and follows it.
    pub(crate) async fn start(
        &mut self,
        container: &dyn Container,
        script: &str,
    ) -> Result<String, SandboxError> {
        let name = self.next_name();
        let program = Program { env: vec![format!("MLGYM_JOB={name}")], ..Program::bash() };
        let mut attached = container.attach(program).await?;
        let source = format!("eval {} </dev/null; exit $?\n", super::shell::quote(script));
        let lost = |reason: String| SandboxError::Lost { id: container.id().clone(), reason };
        let sent = tokio::time::timeout(START_TIME, attached.write(source.as_bytes())).await;
        sent.map_err(|_| lost("a job's shell does not read its command".to_owned()))?
            .map_err(|error| lost(format!("a job: {error}")))?;
        let (sender, ended) = watch::channel(None);
        let limits = CaptureLimits { spool: SPOOL, ..CaptureLimits::default() };
        let outputs = Arc::new(Mutex::new((Capture::new(limits), Capture::new(limits))));
        let job = Job { outputs: outputs.clone(), ended, interrupted: false };
        self.jobs.insert(name.clone(), job);
        self.pumps.spawn(follow(attached, outputs, sender));
        Ok(name)
    }

    /// Marks a job as interrupted; says whether there is one.
    pub(crate) fn mark_interrupted(&mut self, name: &str) -> bool {
        self.jobs.get_mut(name).map(|job| job.interrupted |= job.ended.borrow().is_none()).is_some()
    }

    /// Waits for a job's end, at most so long.
    pub(crate) async fn wait(&mut self, name: &str, timeout: Duration) -> JobReport {
        let Some(job) = self.jobs.get_mut(name) else { return JobReport::Unknown };
        let ended = tokio::time::timeout(timeout, job.ended.wait_for(Option::is_some)).await;
        // A closed channel means that the follower was aborted, as at the sandbox's end.
        let (code, duration) = match ended {
            Ok(Ok(ended)) => ended.unwrap_or_default(),
            Ok(Err(_)) => (-1, Duration::ZERO),
            Err(_) => {
                let outputs = job.outputs.lock().unwrap_or_else(PoisonError::into_inner);
                let (stdout, stderr) = (outputs.0.so_far(), outputs.1.so_far());
                return JobReport::Running(CommandOutputSoFar { stdout, stderr });
            }
        };
        let outputs = job.outputs.lock().unwrap_or_else(PoisonError::into_inner);
        JobReport::Ended(CommandOutput {
            end: if job.interrupted { CommandEnd::Interrupted } else { CommandEnd::Exited(code) },
            stdout: outputs.0.whole(),
            stderr: outputs.1.whole(),
            duration,
            shell_restarted: false,
        })
    }
}

async fn follow(
    mut attached: Attached,
    outputs: Arc<Mutex<(Capture, Capture)>>,
    ended: watch::Sender<Option<Ended>>,
) {
    let started = Instant::now();
    while let Some(chunk) = attached.next().await {
        let mut outputs = outputs.lock().unwrap_or_else(PoisonError::into_inner);
        let capture = if chunk.stderr { &mut outputs.1 } else { &mut outputs.0 };
        if capture.push(&chunk.bytes).is_err() {
            break;
        }
    }
    let code = attached.exit_code().await.ok().flatten();
    // Nobody waits any more when the sandbox is gone.
    let _ = ended.send(Some((code.unwrap_or(-1), started.elapsed())));
}
