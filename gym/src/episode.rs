//! The rim of an episode: its sandbox, its grader and its journal around the [`Rules`].

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mlgym_journal::{
    Action, BudgetKind, EpisodePlan, EpisodeStatus, Event, Home, Observation, RunId, ValidationScore,
};
use mlgym_sandbox::{Backend, Command, FileSource, Mount, Sandbox, SandboxError, SandboxSpec, User};
use mlgym_tasks::{Grade, GradeError, GradeRequest, Grader, Split, Task};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::act::{ActError, Hands};
use crate::environment::{Environment, EnvironmentError, Info, Transition};
use crate::ready::ReadyTask;
use crate::recorder::Recorder;
use crate::rules::{Foul, Rules, seconds};
use crate::submission::{self, CollectError, Collected};

/// What an episode is made of.
#[derive(Debug, Clone)]
pub struct EpisodeSetup {
    /// Where its files go.
    pub home: Home,
    /// Its run.
    pub run: RunId,
    /// Its plan.
    pub plan: EpisodePlan,
    /// Its task, image and data.
    pub ready: Arc<ReadyTask>,
    /// Where its sandboxes come from.
    pub backend: Arc<dyn Backend>,
    /// Its journal.
    pub recorder: Recorder,
    /// Fires when it is to stop.
    pub cancel: CancellationToken,
}

impl EpisodeSetup {
    /// The labels of a sandbox of this episode.
    pub(crate) fn labels(&self, role: &str) -> BTreeMap<String, String> {
        let mut labels = run_labels(&self.home, &self.run, role);
        labels.insert("mlgym.episode".to_owned(), self.plan.episode.to_string());
        labels
    }

    /// Where the submission is copied to.
    pub(crate) fn artifacts(&self, split: Split) -> PathBuf {
        let directory = match split {
            Split::Validation => "validation",
            Split::Test => "submission",
        };
        self.home.episode(&self.run, &self.plan.episode).join(directory)
    }

    /// Scores what lies in the split's artifacts.
    pub(crate) async fn grade(&self, split: Split) -> Result<Grade, GradeError> {
        let request = GradeRequest {
            task: &self.ready.task,
            data: &self.ready.data,
            image: &self.ready.image.reference,
            artifacts: self.artifacts(split),
            split,
            seed: self.plan.seed,
            labels: self.labels("grader"),
        };
        Grader::new(self.backend.clone()).grade(&request, &self.cancel).await
    }

    async fn create_sandbox(&self) -> Result<Box<dyn Sandbox>, SandboxError> {
        let mut sandbox = self.backend.create(&spec(self)).await?;
        let task = &self.ready.task;
        let starter = task.starter_dir();
        if starter.is_dir() {
            sandbox.put(&task.workdir, FileSource::Directory(starter)).await?;
        }
        Ok(sandbox)
    }
}

/// The labels of every sandbox of a run.
pub fn run_labels(home: &Home, run: &RunId, role: &str) -> BTreeMap<String, String> {
    let home = std::fs::canonicalize(home.root()).unwrap_or_else(|_| home.root().to_owned());
    [
        ("mlgym.home", home.display().to_string()),
        ("mlgym.run", run.to_string()),
        ("mlgym.role", role.to_owned()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

/// How an episode ended, once it has.
#[derive(Debug, Clone)]
struct End {
    status: EpisodeStatus,
    reason: Option<String>,
    truncated: Option<BudgetKind>,
    reward: f64,
}

/// A live episode.
#[derive(Debug)]
pub struct Episode {
    setup: EpisodeSetup,
    rules: Rules,
    sandbox: Option<Box<dyn Sandbox>>,
    /// What is charged so far for each job that runs.
    jobs: BTreeMap<String, (Instant, Duration)>,
    reset_at: Instant,
    submitted_after: Option<Duration>,
    end: Option<End>,
    idle: watch::Sender<Option<Instant>>,
}

impl Episode {
    /// Makes an episode that waits for its reset.
    pub fn new(setup: EpisodeSetup) -> Self {
        let limit = setup.ready.task.validation.limit;
        let rules = Rules::new(setup.plan.budgets.clone(), limit);
        Self {
            setup,
            rules,
            sandbox: None,
            jobs: BTreeMap::new(),
            reset_at: Instant::now(),
            submitted_after: None,
            end: None,
            idle: watch::Sender::new(None),
        }
    }

    /// Follows the last moment at which an agent that is not in a step can still act; none while it is in one.
    pub fn idle_deadline(&self) -> watch::Receiver<Option<Instant>> {
        self.idle.subscribe()
    }

    /// Tells the watchdog when the wall budget ends, now that the agent's turn begins.
    fn await_agent(&self) {
        let wall = self.setup.plan.budgets.wall_s.map(seconds);
        self.idle.send_replace(wall.and_then(|wall| self.reset_at.checked_add(wall)));
    }

    fn elapsed(&self) -> Duration {
        self.submitted_after.unwrap_or_else(|| self.reset_at.elapsed())
    }

    fn sandbox(&mut self) -> Result<&mut (dyn Sandbox + 'static), EnvironmentError> {
        self.sandbox.as_deref_mut().ok_or(EnvironmentError::NotReset)
    }

    async fn act(&mut self, action: &Action) -> Result<Observation, EnvironmentError> {
        let limit = self.rules.time_limit(Duration::MAX, self.elapsed());
        let Some(sandbox) = self.sandbox.as_deref_mut() else { return Err(EnvironmentError::NotReset) };
        let mut hands = Hands {
            sandbox,
            blobs: &self.setup.home.blobs(),
            cancel: &self.setup.cancel,
            limit,
            default_timeout: self.setup.ready.task.command_timeout,
        };
        Ok(hands.act(action).await?)
    }

    /// Counts the time of a foreground command, or of the jobs that ran meanwhile.
    fn charge(&mut self, action: &Action, observation: &Observation, took: Duration) {
        match (action, &observation.job) {
            (Action::Wait { .. } | Action::Interrupt { .. }, _) => {}
            (_, Some(job)) => {
                self.jobs.insert(job.name.clone(), (Instant::now(), Duration::ZERO));
            }
            (_, None) => self.rules.charge(took),
        }
        let ended = observation.job.as_ref().filter(|job| job.state != mlgym_journal::JobState::Running);
        let now = Instant::now();
        for (since, charged) in self.jobs.values_mut() {
            let more = now.saturating_duration_since(*since);
            self.rules.charge(more);
            *charged += more;
            *since = now;
        }
        if let Some(job) = ended {
            self.jobs.remove(&job.name);
        }
    }

    async fn validate(&mut self) -> Result<(Observation, f64), EnvironmentError> {
        let task = self.setup.ready.task.clone();
        if task.validation.limit == 0 {
            return Ok((complain("this task has no validation split".to_owned()), 0.0));
        }
        if !self.rules.may_validate() {
            let reason = format!("all {} validations are used", task.validation.limit);
            return Ok((complain(reason), 0.0));
        }
        let root = self.setup.artifacts(Split::Validation);
        let collected = submission::collect(self.sandbox()?, &task.submission, &root).await?;
        if let Collected::Missing(reason) | Collected::Refused(reason) = collected {
            return self.rejected(reason);
        }
        match self.setup.grade(Split::Validation).await? {
            Grade::Rejected { reason } => self.rejected(reason),
            Grade::Scored { raw, normalised, .. } => {
                let (attempt, reward) = self.rules.validated(normalised);
                let score = ValidationScore { metric: task.metric.name.clone(), raw, normalised };
                let event = Event::Validated { attempt, score: Some(score.clone()), rejection: None };
                self.setup.recorder.record(event)?;
                Ok((Observation { validation: Some(score), ..Observation::default() }, reward))
            }
        }
    }

    /// A rejected submission gets no score and costs no validation.
    fn rejected(&self, reason: String) -> Result<(Observation, f64), EnvironmentError> {
        let rejection = Some(reason.clone());
        let event = Event::Validated { attempt: self.rules.validations_used(), score: None, rejection };
        self.setup.recorder.record(event)?;
        Ok((complain(reason), 0.0))
    }

    /// Takes the submission, removes the sandbox, grades, and ends the episode. Returns what the agent sees and
    /// the last reward.
    async fn hand_in(
        &mut self,
        truncated: Option<BudgetKind>,
    ) -> Result<(Observation, f64), EnvironmentError> {
        self.submitted_after = Some(self.elapsed());
        let task = self.setup.ready.task.clone();
        let root = self.setup.artifacts(Split::Test);
        self.sandbox()?.halt().await?;
        let collected = submission::collect(self.sandbox()?, &task.submission, &root).await?;
        let files = match collected {
            Collected::Files(files) => files,
            Collected::Missing(reason) => {
                return Ok(self.settle(EpisodeStatus::NoSubmission, Some(reason), truncated, None));
            }
            Collected::Refused(reason) => {
                return Ok(self.settle(EpisodeStatus::Rejected, Some(reason), truncated, None));
            }
        };
        self.remove_sandbox().await?;
        let usage = self.rules.usage(self.elapsed());
        self.setup.recorder.record(Event::Submitted { files, usage, truncated })?;
        let started = Instant::now();
        Ok(match self.setup.grade(Split::Test).await? {
            Grade::Rejected { reason } => self.settle(EpisodeStatus::Rejected, Some(reason), truncated, None),
            Grade::Scored { metrics, raw, normalised } => {
                let duration_s = started.elapsed().as_secs_f64();
                self.setup.recorder.record(Event::Graded { metrics, raw, normalised, duration_s })?;
                self.settle(EpisodeStatus::Graded, None, truncated, Some(normalised))
            }
        })
    }

    fn settle(
        &mut self,
        status: EpisodeStatus,
        reason: Option<String>,
        truncated: Option<BudgetKind>,
        normalised: Option<f64>,
    ) -> (Observation, f64) {
        let reward = self.rules.end(normalised);
        self.end = Some(End { status, reason: reason.clone(), truncated, reward: normalised.unwrap_or(0.0) });
        let observation = match reason {
            Some(reason) => complain(reason),
            None => Observation::default(),
        };
        (observation, reward)
    }

    async fn remove_sandbox(&mut self) -> Result<(), SandboxError> {
        match self.sandbox.take() {
            Some(sandbox) => sandbox.destroy().await,
            None => Ok(()),
        }
    }

    /// Ends an episode that no submission ended: a budget that is over is answered by grading what there is, as a
    /// step would have; anything else leaves the episode without a score.
    pub async fn expire(&mut self, budget: BudgetKind) -> Result<(), EnvironmentError> {
        if self.end.is_none() && self.sandbox.is_some() {
            self.hand_in(Some(budget)).await?;
        }
        Ok(())
    }

    /// Writes the journal's last event and removes the sandbox. `failure` says why the agent stopped, if it did
    /// not just return.
    pub async fn close(&mut self, failure: Option<(EpisodeStatus, String)>) -> Result<(), EnvironmentError> {
        let removed = self.remove_sandbox().await;
        let end = match (self.end.take(), failure) {
            (Some(end), _) => end,
            (None, Some((status, reason))) => {
                End { status, reason: Some(reason), truncated: None, reward: 0.0 }
            }
            (None, None) => End {
                status: EpisodeStatus::NoSubmission,
                reason: Some("the agent returned without submitting".to_owned()),
                truncated: None,
                reward: 0.0,
            },
        };
        self.setup.recorder.record(Event::EpisodeEnded {
            status: end.status,
            reason: end.reason,
            reward: end.reward,
            truncated: end.truncated,
            usage: self.rules.usage(self.elapsed()),
        })?;
        Ok(removed?)
    }
}

fn complain(reason: String) -> Observation {
    Observation { error: Some(reason), ..Observation::default() }
}

/// The agent's sandbox: the public data read-only, nothing private.
fn spec(setup: &EpisodeSetup) -> SandboxSpec {
    let task = &setup.ready.task;
    // Numerical libraries count the host's cores, not the sandbox's share, and would fight over it.
    let threads = format!("{:.0}", task.limits.cpus.ceil().max(1.0));
    let mut env: BTreeMap<String, String> =
        ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LOKY_MAX_CPU_COUNT"]
            .map(|name| (name.to_owned(), threads.clone()))
            .into();
    env.insert("MLGYM_SEED".to_owned(), setup.plan.seed.to_string());
    env.extend(task.env.clone());
    SandboxSpec {
        image: setup.ready.image.reference.clone(),
        labels: setup.labels("agent"),
        user: User::Agent,
        workdir: task.workdir.clone(),
        env,
        limits: task.limits.clone(),
        mounts: vec![Mount { source: setup.ready.data.public.clone(), target: "/data".to_owned() }],
        read_only_root: false,
        tmpfs: BTreeMap::new(),
    }
}

#[async_trait]
impl Environment for Episode {
    fn task(&self) -> &Task {
        &self.setup.ready.task
    }

    async fn reset(&mut self, _seed: u64) -> Result<(Observation, Info), EnvironmentError> {
        self.remove_sandbox().await?;
        let cancel = self.setup.cancel.clone();
        let created = tokio::select! {
            created = self.setup.create_sandbox() => created?,
            () = cancel.cancelled() => return Err(EnvironmentError::Cancelled),
        };
        let (id, isolation) = (created.id().to_string(), created.isolation());
        self.sandbox = Some(created);
        self.rules.reset();
        self.jobs.clear();
        self.end = None;
        self.submitted_after = None;
        self.reset_at = Instant::now();
        let observation = Observation {
            stdout: self.setup.ready.task.instruction.clone().into(),
            remaining: self.rules.remaining(Duration::ZERO),
            ..Observation::default()
        };
        let event = Event::Reset { sandbox: id, isolation, observation: observation.clone() };
        self.setup.recorder.record(event)?;
        self.await_agent();
        Ok((observation, Info::new()))
    }

    async fn step(&mut self, action: Action) -> Result<Transition, EnvironmentError> {
        let step = self.rules.begin_step()?;
        self.idle.send_replace(None);
        if self.setup.cancel.is_cancelled() {
            return Err(EnvironmentError::Cancelled);
        }
        self.setup.recorder.record(Event::Action { step, action: action.clone() })?;
        let started = Instant::now();
        let mut terminated = false;
        let (mut observation, mut reward) = match &action {
            Action::Validate => self.validate().await?,
            Action::Submit => {
                let path = self.setup.ready.task.submission.clone();
                let cancel = self.setup.cancel.clone();
                match submission::complaint(self.sandbox()?, &path, &cancel).await? {
                    Some(reason) => (complain(reason), 0.0),
                    None => {
                        terminated = true;
                        self.hand_in(None).await?
                    }
                }
            }
            other => (self.act(other).await?, 0.0),
        };
        let took = started.elapsed();
        if !matches!(action, Action::Validate | Action::Submit) {
            self.charge(&action, &observation, took);
        }
        let budget = if terminated { None } else { self.rules.exhausted(self.elapsed()) };
        if let Some(budget) = budget {
            let (last, due) = self.hand_in(Some(budget)).await?;
            reward += due;
            observation
                .notices
                .push(format!("the episode is over: its {budget:?} budget is used up").to_lowercase());
            observation.notices.extend(last.error);
        }
        observation.duration_s = took.as_secs_f64();
        observation.remaining = self.rules.remaining(self.elapsed());
        let truncated = budget.is_some();
        if !terminated && !truncated {
            self.await_agent();
        }
        self.setup.recorder.record(Event::Step {
            step,
            observation: observation.clone(),
            reward,
            terminated,
            truncated,
            budget,
        })?;
        Ok(Transition { observation, reward, terminated, truncated, info: Info::new() })
    }
}

impl Episode {
    /// Runs a command in the episode's sandbox beside the rules: for checks, never for an agent.
    pub async fn probe(&mut self, script: &str, timeout: Duration) -> Result<String, EnvironmentError> {
        let cancel = self.setup.cancel.clone();
        let output = self.sandbox()?.shell(&Command::new(script, timeout), &cancel).await?;
        Ok(format!("{}{}", output.stdout.to_text(), output.stderr.to_text()))
    }
}

impl From<Foul> for EnvironmentError {
    fn from(foul: Foul) -> Self {
        match foul {
            Foul::NotReset => Self::NotReset,
            Foul::Over => Self::Over,
        }
    }
}

impl From<ActError> for EnvironmentError {
    fn from(error: ActError) -> Self {
        match error {
            ActError::Sandbox(SandboxError::Cancelled) => Self::Cancelled,
            ActError::Sandbox(error) => error.into(),
            ActError::Blob(error) => Self::Blob(error),
        }
    }
}

impl From<CollectError> for EnvironmentError {
    fn from(error: CollectError) -> Self {
        match error {
            CollectError::Sandbox(error) => error.into(),
            CollectError::Io { verb, path, source } => Self::Io { verb, path, source },
        }
    }
}
