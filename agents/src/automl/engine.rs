//! The engine: each stage of training on an episode's data, to be called one by one.
//!
//! It knows how a plan is carried out and measured, and not where plans come from or how one is chosen over others. It
//! works in any environment, a fork as well as a trunk, and asks no language model. What it decides by time it decides
//! by the context's clock alone, so that the same readings lead to the same scripts.

use std::collections::BTreeMap;
use std::time::Duration;

use mlgym::{Action, AgentError, Context, Environment, Observation};
use mlgym_journal::{Remaining, ValidationScore};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::automl::kinds::Kind;
use crate::automl::knowledge::{Candidate, Knowledge, Profile};
use crate::automl::plan::{Broken, Ensemble, Execution, Plan, Refit, Trained};
use crate::automl::scripts;
use crate::automl::time::TimePlan;
use crate::steps::{explain, must, step};

const NO_PIPELINE: &str = "no pipeline for this kind of task";

/// What a task's `dataset.json` says, as far as the host reads it; the scripts read the rest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Dataset {
    /// The kind of data: `tabular`, `image`, `forecast`.
    pub kind: String,
    /// `classification`, `regression`.
    pub task: String,
    /// The metric's name.
    pub metric: String,
    /// Everything else.
    #[serde(flatten)]
    pub more: serde_json::Map<String, serde_json::Value>,
}

/// Why a stage stops before its end.
#[derive(Debug, thiserror::Error)]
pub enum Stop {
    /// The episode is over: a budget was used up.
    #[error("go on: the episode is over")]
    Over,
    /// There is nothing to build on, for this reason; the task's baseline can still be submitted.
    #[error("{0}")]
    Fallback(String),
    /// The environment failed.
    #[error(transparent)]
    Failed(AgentError),
}

impl<E: Into<AgentError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// Trains, measures, saves and hands in models in one environment.
pub struct Engine<'a> {
    environment: &'a mut dyn Environment,
    context: &'a Context,
    time: TimePlan,
    site: Site,
}

/// What an engine knows of its sandbox, which a fork of the sandbox shares.
#[derive(Debug, Clone, Default)]
struct Site {
    kind: Option<&'static Kind>,
    metric: String,
    /// The candidates whose modules are there, by module name.
    candidates: BTreeMap<String, Candidate>,
}

impl std::fmt::Debug for Engine<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("time", &self.time).field("site", &self.site).finish_non_exhaustive()
    }
}

impl<'a> Engine<'a> {
    /// Takes an environment that has been reset, and what its budgets left then.
    pub fn new(environment: &'a mut dyn Environment, context: &'a Context, remaining: &Remaining) -> Self {
        Self { environment, context, time: TimePlan::new(remaining), site: Site::default() }
    }

    /// Makes the engine of a fork of this one's environment, which has the same files.
    pub fn in_fork<'b>(&self, environment: &'b mut dyn Environment, context: &'b Context) -> Engine<'b> {
        Engine { environment, context, time: self.time, site: self.site.clone() }
    }

    /// The environment, for steps that are not the engine's.
    pub fn environment(&mut self) -> &mut dyn Environment {
        &mut *self.environment
    }

    /// Takes a step whose outcome may be a failure; the end of the episode stops the engine.
    async fn try_step(&mut self, action: Action) -> Result<Observation, Stop> {
        match step(self.environment, action).await? {
            Some(seen) => Ok(seen),
            None => Err(Stop::Over),
        }
    }

    /// Writes a file of the engine's.
    async fn write(&mut self, path: String, content: String) -> Result<(), Stop> {
        let write = Action::Write { path, content };
        match must(self.environment, "write the engine's scripts", write).await? {
            Some(_) => Ok(()),
            None => Err(Stop::Over),
        }
    }

    /// Runs one of the engine's programs.
    async fn program(
        &mut self,
        name: &str,
        arguments: &str,
        timeout: Option<f64>,
    ) -> Result<Observation, Stop> {
        let command = scripts::command(name, arguments);
        self.try_step(Action::Shell { command, timeout, background: false }).await
    }

    /// Reads what the task is about. A task without a `dataset.json` that is understood is a [`Stop::Fallback`].
    pub async fn dataset(&mut self) -> Result<Dataset, Stop> {
        let read = Action::Read { path: "/data/dataset.json".to_owned(), range: None };
        let seen = self.try_step(read).await?;
        if !seen.is_ok() {
            return Err(Stop::Fallback(format!("{NO_PIPELINE} (there is no /data/dataset.json)")));
        }
        let dataset: Dataset = serde_json::from_str(&seen.stdout.content)
            .map_err(|error| Stop::Fallback(format!("{NO_PIPELINE} (dataset.json: {error})")))?;
        self.site.kind = Kind::find(&dataset.kind);
        self.site.metric.clone_from(&dataset.metric);
        Ok(dataset)
    }

    /// Returns what is known about the data's kind; none is a [`Stop::Fallback`].
    pub fn knowledge(dataset: &Dataset) -> Result<Knowledge, Stop> {
        Knowledge::for_kind(&dataset.kind, &dataset.task)
            .ok_or_else(|| Stop::Fallback(format!("{NO_PIPELINE} ({} {})", dataset.kind, dataset.task)))
    }

    /// Puts the engine's programs into the sandbox and looks at the data.
    pub async fn profile(&mut self) -> Result<Profile, Stop> {
        let kind = self.site.kind.ok_or_else(|| Stop::Fallback(NO_PIPELINE.to_owned()))?;
        self.context.note("profile", "looks at the data")?;
        for (name, content) in scripts::files(kind) {
            self.write(format!("{}/{name}", scripts::WORK), content.to_owned()).await?;
        }
        let seen = self.program("profile.py", "", None).await?;
        last_line(&seen)
            .ok_or_else(|| Stop::Fallback(format!("the data cannot be read:\n{}", explain(&seen))))
    }

    /// Carries out a plan: trains its candidates, tunes the best, and writes the submission of their ensemble. A plan
    /// none of whose candidates could be trained is a [`Stop::Fallback`].
    pub async fn execute(&mut self, plan: &Plan) -> Result<Execution, Stop> {
        let started = self.context.elapsed();
        let time = self.time.part(started, plan.share);
        let names: Vec<_> = plan.candidates.iter().map(|candidate| candidate.name.as_str()).collect();
        let text = format!("{}: {} candidates: {}", plan.name, names.len(), names.join(", "));
        self.context.note_with("plan", text, json!({ "plan": plan.name, "candidates": names }))?;
        let mut round = Round { time, trained: Vec::new(), broken: Vec::new() };
        self.train_all(&plan.candidates, &mut round).await?;
        if round.trained.is_empty() {
            let reasons: Vec<_> =
                round.broken.iter().map(|broken| format!("\n{}: {}", broken.name, broken.reason)).collect();
            return Err(Stop::Fallback(format!("no candidate could be trained in time{}", reasons.concat())));
        }
        self.tune_best(plan.tuned, &mut round).await?;
        let ensemble = self.ensemble(&round.trained).await?;
        let seconds = (self.context.elapsed().saturating_sub(started)).as_secs_f64();
        let Round { trained, broken, .. } = round;
        Ok(Execution { plan: plan.name.clone(), trained, broken, ensemble, seconds })
    }

    async fn train_all(&mut self, candidates: &[Candidate], round: &mut Round) -> Result<(), Stop> {
        for (index, candidate) in candidates.iter().enumerate() {
            let left = candidates.len() - index;
            let elapsed = self.context.elapsed();
            let last_chance =
                || if round.trained.is_empty() { round.time.last_chance(elapsed) } else { None };
            let Some(time) = round.time.candidate(elapsed, left).or_else(last_chance) else {
                self.context.note("train", format!("no time for {left} more candidates"))?;
                break;
            };
            let phase = format!("train {}/{}", index + 1, candidates.len());
            self.context.note(&phase, format!("{}: {}", candidate.name, candidate.why))?;
            let module = self.place(candidate).await?;
            let name = label(&module);
            let arguments = format!("{module} {name} {} {}", self.context.seed, time.as_secs());
            self.measure((&name, &module), "train.py", &arguments, time, round).await?;
        }
        Ok(())
    }

    /// Writes a candidate's module, unless it is there, and returns its name.
    async fn place(&mut self, candidate: &Candidate) -> Result<String, Stop> {
        let kind = self.site.kind.map_or("tabular", |kind| kind.name);
        let mut module = scripts::slug(&candidate.name);
        while let Some(there) = self.site.candidates.get(&module) {
            if there == candidate {
                return Ok(module);
            }
            // Another plan's candidate has this name.
            module.push('x');
        }
        let text = scripts::module(candidate, kind, self.context.seed);
        self.write(scripts::module_path(&module), text).await?;
        self.site.candidates.insert(module.clone(), candidate.clone());
        Ok(module)
    }

    async fn tune_best(&mut self, count: usize, round: &mut Round) -> Result<(), Stop> {
        let mut ranked: Vec<_> = round.trained.clone();
        ranked.sort_by(|a, b| b.score.total_cmp(&a.score));
        let candidates = &self.site.candidates;
        let is_tunable = |trained: &Trained| {
            candidates.get(&trained.candidate).is_some_and(|candidate| !candidate.space.is_empty())
        };
        let chosen: Vec<_> = ranked.into_iter().filter(is_tunable).take(count).collect();
        for (index, before) in chosen.iter().enumerate() {
            let Some(time) = round.time.tuning(self.context.elapsed(), chosen.len() - index) else { break };
            let phase = format!("tune {}/{}", index + 1, chosen.len());
            let (metric, raw, seconds) = (&self.site.metric, before.raw, time.as_secs_f64());
            let text = format!("{} ({metric} {raw:.4} so far) for {seconds:.0} s", before.name);
            self.context.note(&phase, text)?;
            let name = format!("{}-tuned", before.name);
            let arguments = format!("{} {name} {} {}", before.candidate, self.context.seed, time.as_secs());
            self.measure((&name, &before.candidate), "tune.py", &arguments, time, round).await?;
        }
        Ok(())
    }

    /// Runs a program that measures a candidate; one that fails is noted and left out.
    async fn measure(
        &mut self,
        (name, module): (&str, &str),
        program: &str,
        arguments: &str,
        time: Duration,
        round: &mut Round,
    ) -> Result<(), Stop> {
        // Loading the libraries anew, after a deadline killed the process that had them, takes some seconds.
        let timeout = Some(time.as_secs_f64() * 1.3 + 10.0);
        let started = self.context.elapsed();
        let seen = self.program(program, arguments, timeout).await?;
        let seconds = self.context.elapsed().saturating_sub(started).as_secs_f64();
        let outcome = if seen.is_ok() { last_line::<Trained>(&seen) } else { None };
        match outcome {
            Some(outcome) => {
                let trained = Trained { candidate: module.to_owned(), seconds, ..outcome };
                let text = format!("{name}: {:.5} in {seconds:.1} s", trained.raw);
                let data = json!({ "candidate": name, "score": trained.raw, "error": trained.error,
                                   "seconds": trained.seconds, "parameters": trained.parameters });
                self.context.note_with("trained", text, data)?;
                round.trained.push(trained);
            }
            None => {
                let reason = explain(&seen);
                let text = format!("{name} was left out:\n{reason}");
                self.context.note_with("failed", text, json!({ "candidate": name }))?;
                round.broken.push(Broken { name: name.to_owned(), reason });
            }
        }
        Ok(())
    }

    /// Makes the ensemble of results, which may be several plans', and writes its submission.
    pub async fn ensemble(&mut self, trained: &[Trained]) -> Result<Ensemble, Stop> {
        self.context.note("ensemble", format!("of {} candidates", trained.len()))?;
        let names: Vec<_> = trained.iter().map(|trained| trained.name.as_str()).collect();
        let arguments = format!("{} {}", self.context.seed, names.join(" "));
        let seen = self.program("ensemble.py", &arguments, None).await?;
        let ensemble: Option<Ensemble> = if seen.is_ok() { last_line(&seen) } else { None };
        let ensemble =
            ensemble.ok_or_else(|| Stop::Fallback(format!("the ensemble failed:\n{}", explain(&seen))))?;
        let weights = json!(ensemble.weights);
        let text = format!("cross-validated {} {:.5}: {weights}", self.site.metric, ensemble.raw);
        let data = json!({ "weights": weights, "score": ensemble.raw, "error": ensemble.error });
        self.context.note_with("ensemble", text, data)?;
        Ok(ensemble)
    }

    /// Fits an execution's ensemble on all training rows and saves it with the modules that it needs, in
    /// [`scripts::MODEL`]. The submission stays as it is.
    pub async fn refit(&mut self, execution: &Execution) -> Result<Refit, Stop> {
        self.context.note("refit", "fits the ensemble on all training rows and saves it")?;
        let member = |(trained, weight): (&Trained, f64)| json!({ "candidate": trained.candidate, "parameters": trained.parameters, "weight": weight });
        let members: Vec<_> = execution.members().map(member).collect();
        let path = format!("{}/members.json", scripts::WORK);
        self.write(path.clone(), serde_json::to_string_pretty(&members).unwrap_or_default()).await?;
        let arguments = format!("{} {} {path}", self.context.seed, scripts::MODEL);
        let seen = self.program("refit.py", &arguments, None).await?;
        let refit: Option<Refit> = if seen.is_ok() { last_line(&seen) } else { None };
        refit.ok_or_else(|| Stop::Fallback(format!("the model cannot be saved:\n{}", explain(&seen))))
    }

    /// Checks the submission's form; a wrong one is a [`Stop::Fallback`].
    pub async fn verify(&mut self) -> Result<(), Stop> {
        self.context.note("verify", "checks the submission's form")?;
        let seen = self.program("verify.py", "", None).await?;
        if seen.is_ok() {
            Ok(())
        } else {
            Err(Stop::Fallback(format!("the submission has the wrong form:\n{}", explain(&seen))))
        }
    }

    /// Has the submission scored on the validation split, where the task allows it and one is left.
    pub async fn validate(&mut self) -> Result<Option<ValidationScore>, Stop> {
        if self.environment.task().validation.limit == 0 {
            return Ok(None);
        }
        self.context.note("validate", "has the submission scored on the validation split")?;
        let seen = self.try_step(Action::Validate).await?;
        match (seen.validation, seen.error) {
            (Some(score), _) => {
                let text = format!("{} {:.5} on the validation split", score.metric, score.raw);
                self.context.note("validate", text)?;
                Ok(Some(score))
            }
            (None, Some(reason)) => Err(Stop::Fallback(format!("the submission was rejected: {reason}"))),
            (None, None) => Ok(None),
        }
    }
}

/// What a plan has come to so far.
struct Round {
    time: TimePlan,
    trained: Vec<Trained>,
    broken: Vec<Broken>,
}

/// A result's name, by its candidate's module.
fn label(module: &str) -> String {
    module.replace('_', "-")
}

/// Reads the last line of a script's output as JSON.
fn last_line<T: serde::de::DeserializeOwned>(seen: &Observation) -> Option<T> {
    serde_json::from_str(seen.stdout.content.trim_end().lines().last()?).ok()
}
