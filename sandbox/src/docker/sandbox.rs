//! A sandbox on the Docker engine: one container, its resident shell and its jobs.

use std::path::Path;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bollard::Docker;
use bollard::query_parameters::{KillContainerOptionsBuilder, RestartContainerOptionsBuilder};
use futures_util::StreamExt;
use tokio_util::sync::CancellationToken;

use crate::backend::{EngineFacts, JobReport, Sandbox, SandboxError};
use crate::docker::disk::DiskWatch;
use crate::docker::exec::{Exec, ExecSpec};
use crate::docker::jobs::Jobs;
use crate::docker::shell::{ResidentShell, Turn, quote};
use crate::docker::{Orphans, archive, container, engine};
use crate::spec::{Command, CommandEnd, CommandOutput, SandboxId, SandboxSpec};
use crate::transfer::{FileSource, TransferCaps, Transferred};

/// How long the killing program may take before the whole container is restarted.
const KILL_GRACE: Duration = Duration::from_secs(2);

const KILL: &str = include_str!("kill.bash");

#[derive(Debug)]
pub(crate) struct DockerSandbox {
    docker: Docker,
    id: SandboxId,
    user: &'static str,
    workdir: String,
    storage_bytes: Option<u64>,
    isolation: serde_json::Value,
    shell: Option<ResidentShell>,
    jobs: Jobs,
    orphans: Orphans,
    removed: bool,
}

impl DockerSandbox {
    pub(crate) async fn create(
        docker: &Docker,
        facts: &EngineFacts,
        spec: &SandboxSpec,
        orphans: &Orphans,
    ) -> Result<Self, SandboxError> {
        let started = container::create(docker, facts, spec).await?;
        // From here on a failure drops the sandbox, and the next sweep removes the container.
        let mut sandbox = Self {
            docker: docker.clone(),
            id: started.id,
            user: spec.user.as_exec_user(),
            workdir: spec.workdir.clone(),
            storage_bytes: started.watch_disk.then_some(spec.limits.storage_bytes),
            isolation: started.isolation,
            shell: None,
            jobs: Jobs::default(),
            orphans: orphans.clone(),
            removed: false,
        };
        sandbox.start_shell().await?;
        Ok(sandbox)
    }

    async fn start_shell(&mut self) -> Result<(), SandboxError> {
        let workdir = Some(self.workdir.clone());
        self.shell = Some(ResidentShell::start(&self.docker, &self.id, self.user, workdir).await?);
        Ok(())
    }

    fn resident(&mut self) -> Result<&mut ResidentShell, SandboxError> {
        let lost = SandboxError::Lost { id: self.id.clone(), reason: "it was halted".to_owned() };
        self.shell.as_mut().ok_or(lost)
    }

    /// Runs the killing program; says whether everything it looked for is dead.
    async fn kill(&mut self, arguments: Vec<String>) -> bool {
        let mut program: Vec<String> = ["/bin/bash", "-c", KILL, "kill"].map(str::to_owned).to_vec();
        program.extend(arguments);
        let spec = ExecSpec { program, user: self.user, env: Vec::new(), workdir: None };
        let attempt = async {
            let mut exec = Exec::start(&self.docker, &self.id, spec).await?;
            while let Some(Ok(_)) = exec.output.next().await {}
            exec.exit_code(&self.docker).await
        };
        matches!(tokio::time::timeout(KILL_GRACE, attempt).await, Ok(Ok(Some(0))))
    }

    /// Kills the running command's processes and waits until the shell is free again. A shell that does not come
    /// free, or processes that do not die, cost the shell: the container is restarted with its files kept.
    async fn stop_command(&mut self) -> Result<Turn, SandboxError> {
        let shell_pid = self.resident()?.pid();
        let mut arguments = vec![shell_pid.to_string(), "step".to_owned()];
        arguments.extend(self.jobs.living());
        let killed = self.kill(arguments).await;
        if killed {
            let turn = self.resident()?.finish(Duration::from_secs(1)).await?;
            if matches!(turn, Turn::Done(_) | Turn::ShellDied(_)) {
                return Ok(turn);
            }
        }
        let options = RestartContainerOptionsBuilder::default().t(0).build();
        let restarted = self.docker.restart_container(&self.id.0, Some(options)).await;
        restarted.map_err(engine("restart"))?;
        Ok(Turn::ShellDied(None))
    }

    /// Resolves when the container holds more than its limit; never, where the engine has a quota.
    fn disk_watch(&self) -> impl Future<Output = ()> + Send + use<> {
        let watch = self.storage_bytes.map(|limit| DiskWatch {
            docker: self.docker.clone(),
            id: self.id.clone(),
            user: self.user,
            workdir: self.workdir.clone(),
            limit,
        });
        async move {
            match watch {
                Some(watch) => watch.full().await,
                None => std::future::pending().await,
            }
        }
    }
}

#[async_trait]
impl Sandbox for DockerSandbox {
    fn id(&self) -> &SandboxId {
        &self.id
    }

    fn isolation(&self) -> serde_json::Value {
        self.isolation.clone()
    }

    async fn shell(
        &mut self,
        command: &Command,
        cancel: &CancellationToken,
    ) -> Result<CommandOutput, SandboxError> {
        let started = Instant::now();
        let watch = CancellationToken::new();
        let disk_full = self.disk_watch();
        let turn = {
            let stop = watch.clone();
            let run = self.resident()?.run(command, &stop);
            tokio::pin!(run);
            tokio::select! {
                biased;
                turn = &mut run => Ok(turn?),
                () = cancel.cancelled() => Err(CommandEnd::Interrupted),
                () = disk_full => Err(CommandEnd::DiskFull),
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
            self.start_shell().await?;
        }
        Ok(CommandOutput {
            end: end.unwrap_or(CommandEnd::Exited(code)),
            stdout,
            stderr,
            duration: started.elapsed(),
            shell_restarted: died,
        })
    }

    async fn spawn(&mut self, script: &str) -> Result<String, SandboxError> {
        let state = Command::new("builtin pwd; builtin export -p", Duration::from_secs(10));
        let shell = self.resident()?;
        shell.run(&state, &CancellationToken::new()).await?;
        let (stdout, _) = shell.take_outputs()?;
        let text = stdout.to_text();
        let (directory, exports) = text.split_once('\n').unwrap_or((&self.workdir, ""));
        let script = format!("cd {}\n{exports}\n{script}", quote(directory));
        self.jobs.start(&self.docker, &self.id, self.user, &script).await
    }

    async fn wait(&mut self, job: &str, timeout: Duration) -> Result<JobReport, SandboxError> {
        Ok(self.jobs.wait(job, timeout).await)
    }

    async fn interrupt(&mut self, job: &str) -> Result<JobReport, SandboxError> {
        if self.jobs.mark_interrupted(job) {
            let keep = self.resident()?.pid().to_string();
            self.kill(vec![keep, "job".to_owned(), job.to_owned()]).await;
        }
        Ok(self.jobs.wait(job, KILL_GRACE).await)
    }

    async fn put(&mut self, target: &str, source: FileSource) -> Result<(), SandboxError> {
        archive::put(&self.docker, &self.id, target, source).await
    }

    async fn get(
        &mut self,
        path: &str,
        target: &Path,
        caps: TransferCaps,
    ) -> Result<Transferred, SandboxError> {
        archive::get(&self.docker, &self.id, path, target, caps).await
    }

    async fn halt(&mut self) -> Result<(), SandboxError> {
        self.shell = None;
        let options = KillContainerOptionsBuilder::default().signal("SIGKILL").build();
        match self.docker.kill_container(&self.id.0, Some(options)).await {
            // 409: it is not running any more.
            Ok(()) | Err(bollard::errors::Error::DockerResponseServerError { status_code: 409, .. }) => {}
            Err(source) => return Err(engine("halt")(source)),
        }
        let mut ended =
            self.docker.wait_container(&self.id.0, None::<bollard::query_parameters::WaitContainerOptions>);
        // The exit code of a killed container comes as an error, and is of no interest.
        let _ = ended.next().await;
        Ok(())
    }

    async fn destroy(mut self: Box<Self>) -> Result<(), SandboxError> {
        super::remove(&self.docker, &self.id).await?;
        self.removed = true;
        Ok(())
    }
}

impl Drop for DockerSandbox {
    fn drop(&mut self) {
        if !self.removed {
            self.orphans.lock().unwrap_or_else(PoisonError::into_inner).push(self.id.clone());
        }
    }
}
