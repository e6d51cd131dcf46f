//! A sandbox on any container: one resident shell, background jobs beside it, deadlines that kill whole trees.

use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::backend::{JobReport, Orphans, Sandbox, SandboxError, Snapshot};
use crate::egress::{self, EgressProxy};
use crate::resident::container::{Attached, Container, Prey};
use crate::resident::jobs::Jobs;
use crate::resident::shell::{ResidentShell, Turn, quote};
use crate::spec::{Command, CommandEnd, CommandOutput, SandboxId};
use crate::transfer::{FileSource, TransferCaps, Transferred};

pub(crate) mod container;
mod jobs;
mod marker;
pub(crate) mod shell;

/// How long killing may take before the whole container is restarted.
const KILL_GRACE: Duration = Duration::from_secs(2);

/// How long the shell may take to say where it is.
const STATE_TIME: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct ResidentSandbox {
    container: Arc<dyn Container>,
    shell: Option<ResidentShell>,
    jobs: Jobs,
    orphans: Orphans,
    /// Its way out, where it has one.
    egress: Option<EgressProxy>,
    /// What gives the way out a port inside, with its pid there.
    forwarder: Option<(u32, Attached)>,
    removed: bool,
}

impl ResidentSandbox {
    /// Takes a container that runs and starts the shell. A failure drops the sandbox, and the next sweep removes
    /// the container.
    pub(crate) async fn start(
        container: Arc<dyn Container>,
        orphans: &Orphans,
        egress: Option<EgressProxy>,
    ) -> Result<Self, SandboxError> {
        let (orphans, jobs) = (orphans.clone(), Jobs::default());
        let mut sandbox =
            Self { container, shell: None, jobs, orphans, egress, forwarder: None, removed: false };
        sandbox.start_shell().await?;
        sandbox.start_forwarder().await?;
        Ok(sandbox)
    }

    /// Gives the proxy's socket a port inside, where there is a proxy. Needed again whenever all processes were killed.
    async fn start_forwarder(&mut self) -> Result<(), SandboxError> {
        if self.egress.is_none() {
            return Ok(());
        }
        let mut attached = self.container.attach(egress::forwarder()).await?;
        let refused = |reason: String| SandboxError::Refused { what: "a network".to_owned(), reason };
        let ready = async {
            let mut said = String::new();
            while let Some(chunk) = attached.next().await {
                said.push_str(&String::from_utf8_lossy(&chunk.bytes));
                if let Some(pid) = said.strip_prefix("ready ").and_then(|rest| rest.strip_suffix('\n')) {
                    return Ok(pid.parse().unwrap_or(0));
                }
            }
            Err(refused(format!("its image has no python3 that could forward to the proxy: {}", said.trim())))
        };
        let slow = |_| refused("its forwarder does not start".to_owned());
        let pid = tokio::time::timeout(STATE_TIME, ready).await.map_err(slow)??;
        self.forwarder = Some((pid, attached));
        Ok(())
    }

    /// Restarts the container and what mlgym itself has running in it.
    async fn restart(&mut self) -> Result<(), SandboxError> {
        self.container.restart().await?;
        self.start_forwarder().await
    }

    /// Brings the shell to where a snapshot's was.
    pub(crate) async fn take_up(&mut self, snapshot: &Snapshot) -> Result<(), SandboxError> {
        let script = format!("{}\nbuiltin cd {}", snapshot.environment, quote(&snapshot.workdir));
        let shell = self.resident()?;
        shell.run(&Command::new(script, STATE_TIME), &CancellationToken::new()).await?;
        shell.take_outputs()?;
        Ok(())
    }

    async fn start_shell(&mut self) -> Result<(), SandboxError> {
        self.shell = Some(ResidentShell::start(self.container.as_ref()).await?);
        Ok(())
    }

    /// Starts the shell again, and the container where it ended with the shell: it may have run out of memory.
    async fn revive(&mut self) -> Result<(), SandboxError> {
        if self.start_shell().await.is_ok() {
            return Ok(());
        }
        self.restart().await?;
        self.start_shell().await
    }

    fn resident(&mut self) -> Result<&mut ResidentShell, SandboxError> {
        let lost = SandboxError::Lost { id: self.container.id().clone(), reason: "it was halted".to_owned() };
        self.shell.as_mut().ok_or(lost)
    }

    /// The processes that no deadline and no interruption is for.
    fn spared(&mut self) -> Result<Vec<u32>, SandboxError> {
        let forwarder = self.forwarder.as_ref().map(|(pid, _)| *pid);
        let shell = self.resident()?.pid();
        Ok([shell].into_iter().chain(forwarder).collect())
    }

    /// Kills, and says whether everything that was looked for is dead.
    async fn kill(&mut self, prey: &Prey) -> bool {
        tokio::time::timeout(KILL_GRACE, self.container.kill(prey)).await.unwrap_or(false)
    }

    /// Kills the running command's processes and waits until the shell is free again. A shell that does not come
    /// free, or processes that do not die, cost the shell: the container is restarted with its files kept.
    async fn stop_command(&mut self) -> Result<Turn, SandboxError> {
        let prey = Prey::Step { spared: self.spared()?, living: self.jobs.living() };
        if self.kill(&prey).await {
            let turn = self.resident()?.finish(Duration::from_secs(1)).await?;
            if matches!(turn, Turn::Done(_) | Turn::ShellDied(_)) {
                return Ok(turn);
            }
        }
        self.restart().await?;
        Ok(Turn::ShellDied(None))
    }

    /// Asks the shell for its directory and its exported variables, as a script that sets them again.
    async fn state(&mut self) -> Result<(String, String), SandboxError> {
        let shell = self.resident()?;
        let ask = Command::new("builtin pwd; builtin export -p", STATE_TIME);
        shell.run(&ask, &CancellationToken::new()).await?;
        let (stdout, _) = shell.take_outputs()?;
        let text = stdout.to_text();
        let (directory, exports) = text.split_once('\n').unwrap_or((self.container.workdir(), ""));
        Ok((directory.to_owned(), exports.to_owned()))
    }
}

#[async_trait]
impl Sandbox for ResidentSandbox {
    fn id(&self) -> &SandboxId {
        self.container.id()
    }

    fn isolation(&self) -> serde_json::Value {
        self.container.isolation()
    }

    async fn shell(
        &mut self,
        command: &Command,
        cancel: &CancellationToken,
    ) -> Result<CommandOutput, SandboxError> {
        let started = Instant::now();
        // A shell that died between two commands costs the next one only what it had set.
        let was_dead = self.resident()?.has_ended();
        if was_dead {
            self.revive().await?;
        }
        // It runs as the sandbox's user, who may kill it and loses nothing but the time to start it again.
        if self.forwarder.as_mut().is_some_and(|(_, forwarder)| forwarder.has_ended()) {
            self.start_forwarder().await?;
        }
        let container = self.container.clone();
        let turn = {
            let never = CancellationToken::new();
            let run = self.resident()?.run(command, &never);
            tokio::pin!(run);
            tokio::select! {
                biased;
                turn = &mut run => Ok(turn?),
                () = cancel.cancelled() => Err(CommandEnd::Interrupted),
                () = container.disk_full() => Err(CommandEnd::DiskFull),
            }
        };
        let (end, turn) = match turn {
            Ok(Turn::TimedOut | Turn::Cancelled) => (Some(CommandEnd::TimedOut), self.stop_command().await?),
            Ok(turn) => (None, turn),
            Err(end) => (Some(end), self.stop_command().await?),
        };
        let (stdout, stderr) = self.resident()?.take_outputs()?;
        let (code, died) = match turn {
            Turn::Done(code) => (code, false),
            Turn::ShellDied(code) => (code.unwrap_or(-1), true),
            Turn::TimedOut | Turn::Cancelled => (-1, false),
        };
        if died {
            self.revive().await?;
        }
        Ok(CommandOutput {
            end: end.unwrap_or(CommandEnd::Exited(code)),
            stdout,
            stderr,
            duration: started.elapsed(),
            shell_restarted: died || was_dead,
        })
    }

    async fn spawn(&mut self, script: &str) -> Result<String, SandboxError> {
        let (directory, exports) = self.state().await?;
        let script = format!("cd {}\n{exports}\n{script}", quote(&directory));
        self.jobs.start(self.container.as_ref(), &script).await
    }

    async fn wait(&mut self, job: &str, timeout: Duration) -> Result<JobReport, SandboxError> {
        Ok(self.jobs.wait(job, timeout).await)
    }

    async fn interrupt(&mut self, job: &str) -> Result<JobReport, SandboxError> {
        if self.jobs.mark_interrupted(job) {
            let spared = self.spared()?;
            self.kill(&Prey::Job { spared, name: job.to_owned() }).await;
        }
        Ok(self.jobs.wait(job, KILL_GRACE).await)
    }

    async fn put(&mut self, target: &str, source: FileSource) -> Result<(), SandboxError> {
        self.container.put(target, source).await
    }

    async fn get(
        &mut self,
        path: &str,
        target: &Path,
        caps: TransferCaps,
    ) -> Result<Transferred, SandboxError> {
        self.container.get(path, target, caps).await
    }

    async fn snapshot(&mut self) -> Result<Snapshot, SandboxError> {
        let (workdir, environment) = self.state().await?;
        Ok(Snapshot { id: self.container.snapshot().await?, workdir, environment })
    }

    async fn halt(&mut self) -> Result<(), SandboxError> {
        self.shell = None;
        self.container.halt().await
    }

    async fn destroy(mut self: Box<Self>) -> Result<(), SandboxError> {
        self.container.remove().await?;
        self.removed = true;
        Ok(())
    }
}

impl Drop for ResidentSandbox {
    fn drop(&mut self) {
        if !self.removed {
            let id = self.container.id().clone();
            self.orphans.lock().unwrap_or_else(PoisonError::into_inner).push(id);
        }
    }
}
