//! Grading: a fresh sandbox, the private data, no network, and the copied-out submission.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mlgym_sandbox::{Backend, SandboxError};
use tokio_util::sync::CancellationToken;

use crate::prepare::PreparedData;
use crate::spec::{Split, Task};

/// What the grader made of a submission.
#[derive(Debug, Clone, PartialEq)]
pub enum Grade {
    /// It has a score.
    Scored {
        /// All that the grader reported.
        metrics: BTreeMap<String, f64>,
        /// The primary metric's raw score.
        raw: f64,
        /// 0 at the baseline, 1 at the reference.
        normalised: f64,
    },
    /// It is at fault; the reason is for the agent to read.
    Rejected {
        /// What is wrong with it.
        reason: String,
    },
}

/// A submission to grade.
#[derive(Debug, Clone)]
pub struct GradeRequest<'a> {
    /// The task.
    pub task: &'a Task,
    /// The task's data.
    pub data: &'a PreparedData,
    /// The task's image, as the engine knows it.
    pub image: &'a str,
    /// The directory on the host that holds what was copied out, laid out by absolute path
    /// (`<dir>/workspace/submission.csv`).
    pub artifacts: PathBuf,
    /// The split to score it on.
    pub split: Split,
    /// The episode's seed.
    pub seed: u64,
    /// Labels of the run and the episode, for the grader's sandbox.
    pub labels: BTreeMap<String, String>,
}

/// Says why there is no grade: the grader's fault or the machine's, never the submission's.
#[derive(Debug, thiserror::Error)]
pub enum GradeError {
    /// The grader wrote nothing.
    #[error("grade {task}: the grader ended with {end} and wrote no /logs/verifier/reward.json\n{output}")]
    NoReward {
        /// The task.
        task: String,
        /// How it ended.
        end: String,
        /// The end of what it printed.
        output: String,
    },
    /// The grader wrote something that is no object of finite numbers with the primary metric.
    #[error("grade {task}: the grader's reward.json {reason}")]
    BadReward {
        /// The task.
        task: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The grader did not end in time.
    #[error("grade {task}: the grader did not end within {} s", limit.as_secs_f64())]
    TimedOut {
        /// The task.
        task: String,
        /// Its limit.
        limit: Duration,
    },
    /// The sandbox failed.
    #[error("grade {task}")]
    Sandbox {
        /// The task.
        task: String,
        /// Why.
        #[source]
        source: SandboxError,
    },
    /// The host's file system failed.
    #[error("grade {task}: {verb} {}", path.display())]
    Io {
        /// The task.
        task: String,
        /// What was tried.
        verb: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Grades submissions on a backend.
#[derive(Debug, Clone)]
pub struct Grader {
    backend: Arc<dyn Backend>,
}

impl Grader {
    /// Takes the backend that its sandboxes come from.
    pub fn new(backend: Arc<dyn Backend>) -> Self {
        Self { backend }
    }

    /// Scores a submission in a fresh sandbox that is gone when this returns.
    pub async fn grade(
        &self,
        request: &GradeRequest<'_>,
        cancel: &CancellationToken,
    ) -> Result<Grade, GradeError> {
        let _ = (cancel, &self.backend);
        Err(GradeError::BadReward { task: request.task.name.to_string(), reason: String::new() })
    }
}
