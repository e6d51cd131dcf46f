//! One attached program in a container.

use std::pin::Pin;
use std::time::Duration;

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use futures_util::Stream;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::backend::SandboxError;
use crate::docker::engine;
use crate::spec::SandboxId;

/// What to start.
pub(crate) struct ExecSpec<'a> {
    pub(crate) program: Vec<String>,
    pub(crate) user: &'a str,
    pub(crate) env: Vec<String>,
    pub(crate) workdir: Option<String>,
}

/// A program that runs, with both ends of its pipes.
pub(crate) struct Exec {
    id: String,
    pub(crate) output: Pin<Box<dyn Stream<Item = Result<LogOutput, Error>> + Send>>,
    input: Pin<Box<dyn AsyncWrite + Send>>,
}

impl std::fmt::Debug for Exec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exec").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Exec {
    pub(crate) async fn start(
        docker: &Docker,
        container: &SandboxId,
        spec: ExecSpec<'_>,
    ) -> Result<Self, SandboxError> {
        let options = CreateExecOptions {
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            env: Some(spec.env),
            cmd: Some(spec.program),
            user: Some(spec.user.to_owned()),
            working_dir: spec.workdir,
            ..CreateExecOptions::default()
        };
        let id = docker.create_exec(&container.0, options).await.map_err(engine("start a program in"))?.id;
        let options = StartExecOptions { output_capacity: Some(64 * 1024), ..StartExecOptions::default() };
        match docker.start_exec(&id, Some(options)).await.map_err(engine("start a program in"))? {
            StartExecResults::Attached { output, input } => Ok(Self { id, output, input }),
            StartExecResults::Detached => Err(SandboxError::Lost {
                id: container.clone(),
                reason: "the engine detached a program that was to be attached".to_owned(),
            }),
        }
    }

    /// Writes to the program's standard input.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.input.write_all(bytes).await?;
        self.input.flush().await
    }

    /// Returns the exit code of a program whose streams have ended, `None` when the engine does not tell.
    pub(crate) async fn exit_code(&mut self, docker: &Docker) -> Result<Option<i32>, SandboxError> {
        // The engine closes the streams a moment before it notes the end.
        for delay_ms in [0, 1, 5, 20, 100, 400] {
            tokio::time::sleep(Duration::from_millis(delay_ms)).await;
            let state = docker.inspect_exec(&self.id).await.map_err(engine("inspect a program in"))?;
            if state.running != Some(true) {
                return Ok(state.exit_code.and_then(|code| i32::try_from(code).ok()));
            }
        }
        Ok(None)
    }
}

/// Splits a frame into its stream and its bytes; `true` is standard error.
pub(crate) fn split(frame: LogOutput) -> (bool, bytes::Bytes) {
    match frame {
        LogOutput::StdErr { message } => (true, message),
        LogOutput::StdOut { message } | LogOutput::StdIn { message } | LogOutput::Console { message } => {
            (false, message)
        }
    }
}
