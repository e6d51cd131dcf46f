//! A sandbox on any container: one resident shell, background jobs beside it, deadlines that kill whole trees.

use std::io;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::backend::{JobReport, Orphans, Sandbox, SandboxError, Snapshot};
use crate::capture::CaptureLimits;
use crate::egress::{self, EgressProxy};
use crate::resident::container::{Attached, Container, Prey};
use crate::resident::jobs::Jobs;
use crate::resident::shell::{ResidentShell, Turn, quote};
use crate::spec::{Command, CommandEnd, CommandOutput, SandboxId};
use crate::transfer::{FileSource, TransferCaps, TransferError, Transferred};

pub(crate) mod container;
mod jobs;
mod marker;
pub(crate) mod shell;

/// How long killing may take before the whole container is restarted.
const KILL_GRACE: Duration = Duration::from_secs(2);

/// How much a shell may have to say of its variables.
const MOST_STATE: usize = 8 << 20;

/// How long files may take in or out: more than enough for what is accepted.
const TRANSFER_TIME: Duration = Duration::from_secs(300);

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

    /// Brings the shell to where a snapshot's was; where that directory is gone, to where shells start.
    pub(crate) async fn take_up(&mut self, snapshot: &Snapshot) -> Result<(), SandboxError> {
        let (there, home) = (quote(&snapshot.workdir), quote(self.container.workdir()));
        let script = format!("{}\nbuiltin cd {there} || builtin cd {home}", snapshot.environment);
        let shell = self.resident()?;
        let turn = shell.run(&Command::new(script, STATE_TIME), &CancellationToken::new()).await?;
        let (_, stderr) = shell.take_outputs()?;
        if turn == Turn::Done(0) {
            return Ok(());
        }
        let said = stderr.to_text();
        let reason = format!("it cannot be brought to where its snapshot stood ({turn:?}): {}", said.trim());
        Err(SandboxError::Lost { id: self.container.id().clone(), reason })
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
    /// A shell that does not answer is started anew, and then stands where shells start.
    async fn state(&mut self) -> Result<(String, String), SandboxError> {
        let mut ask = Command::new("builtin pwd; builtin export -p", STATE_TIME);
        ask.capture = CaptureLimits { head: MOST_STATE, tail: 0, spool: 0 };
        for _ in 0..2 {
            let answer = self.shell(&ask, &CancellationToken::new()).await?;
            if answer.end != CommandEnd::Exited(0) || answer.shell_restarted {
                continue;
            }
            if answer.stdout.omitted() > 0 {
                let reason = format!("its shell's variables are longer than {MOST_STATE} bytes");
                return Err(SandboxError::Lost { id: self.container.id().clone(), reason });
            }
            let text = answer.stdout.to_text();
            let (directory, exports) = text.split_once('\n').unwrap_or((self.container.workdir(), ""));
            return Ok((directory.to_owned(), exports.to_owned()));
        }
        Ok((self.container.workdir().to_owned(), String::new()))
    }

    /// Makes the container anew around its files, where it was lost: under some backends a sandbox's user can stop or
    /// kill what programs are started by, and must not be able to end its episode with that.
    async fn mend(&mut self, error: SandboxError) -> Result<(), SandboxError> {
        let SandboxError::Lost { .. } = error else { return Err(error) };
        if self.shell.is_none() {
            // It was halted: only files are asked of it.
            return self.container.restart().await;
        }
        self.restart().await?;
        self.start_shell().await
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
        if self.jobs.living().len() >= jobs::MOST {
            return Err(SandboxError::TooManyJobs { limit: jobs::MOST });
        }
        let (directory, exports) = self.state().await?;
        let script = format!("cd {}\n{exports}\n{script}", quote(&directory));
        match self.jobs.start(self.container.as_ref(), &script).await {
            Err(error) => {
                self.mend(error).await?;
                self.jobs.start(self.container.as_ref(), &script).await
            }
            started => started,
        }
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
        let put = self.container.put(target, source);
        tokio::time::timeout(TRANSFER_TIME, put).await.unwrap_or_else(|_| {
            let (id, reason) = (self.container.id().clone(), "it takes no files".to_owned());
            Err(SandboxError::Lost { id, reason })
        })
    }

    async fn get(
        &mut self,
        path: &str,
        target: &Path,
        caps: TransferCaps,
    ) -> Result<Transferred, SandboxError> {
        let container = self.container.clone();
        let once = || async {
            let copied = tokio::time::timeout(TRANSFER_TIME, container.get(path, target, caps)).await;
            let slow = io::Error::from(io::ErrorKind::TimedOut);
            copied.unwrap_or(Err(TransferError::Broken { path: path.to_owned(), source: slow }.into()))
        };
        match once().await {
            Err(error @ SandboxError::Lost { .. }) => {
                self.mend(error).await?;
                once().await
            }
            copied => copied,
        }
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
