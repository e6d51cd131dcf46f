//! The built-in AutoML engine: no language model, and it says so.
//!
//! It reads `/data/dataset.json`, looks at the data, picks candidate pipelines from a knowledge base kept as data
//! files, writes a training script for each and cross-validates it in the sandbox under a time plan, tunes the
//! best, selects an ensemble, verifies the submission's form, validates once, and submits. A kind of data that it
//! has no pipeline for gets the task's baseline, and the journal says that.

use std::time::Duration;

use async_trait::async_trait;
use mlgym::{Action, Agent, AgentError, Context, Environment, Observation};
use serde::Deserialize;
use serde_json::json;

use crate::steps::{explain, must, run_baseline, step, submit};

mod knowledge;
mod plan;
pub(crate) mod scripts;

use knowledge::{Candidate, Knowledge, Profile};
use plan::TimePlan;

/// Says in the journal what every user should know.
const NO_MODEL: &str = "built-in AutoML engine: uses no language model";

const NO_PIPELINE: &str = "no pipeline for this kind of task";

/// How many of the best candidates are tuned.
const TUNED: usize = 2;

/// The AutoML agent.
#[derive(Debug, Default)]
pub struct AutoMl;

/// What is read of a task's `dataset.json` here; the scripts read the rest.
#[derive(Debug, Deserialize)]
struct Dataset {
    kind: String,
    task: String,
    metric: String,
}

/// What a training script prints last.
#[derive(Debug, Clone, Deserialize)]
struct Trained {
    name: String,
    /// More is better.
    score: f64,
    /// In the metric's own direction.
    raw: f64,
    seconds: f64,
    #[serde(default)]
    parameters: serde_json::Value,
}

/// What the ensemble's script prints last.
#[derive(Debug, Deserialize)]
struct Ensemble {
    weights: serde_json::Value,
    raw: f64,
}

/// Why the engine stops before its end.
enum Stop {
    /// The episode is over.
    Over,
    /// There is nothing to build on; the baseline is submitted for this reason.
    Fallback(String),
    /// The environment failed.
    Failed(AgentError),
}

impl<E: Into<AgentError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

#[async_trait]
impl Agent for AutoMl {
    async fn run(
        &mut self,
        environment: &mut dyn Environment,
        context: &mut Context,
    ) -> Result<(), AgentError> {
        let (first, _) = environment.reset(context.seed).await?;
        context.note("start", NO_MODEL)?;
        let mut engine = Engine { environment, context, plan: TimePlan::new(&first.remaining) };
        match engine.solve().await {
            Ok(()) => submit(engine.environment).await,
            Err(Stop::Over) => Ok(()),
            Err(Stop::Failed(error)) => Err(error),
            Err(Stop::Fallback(reason)) => {
                engine.context.note("baseline", format!("{reason}: submits the task's baseline"))?;
                if run_baseline(engine.environment, "automl").await? {
                    submit(engine.environment).await
                } else {
                    Ok(())
                }
            }
        }
    }
}

/// One episode's work.
struct Engine<'a> {
    environment: &'a mut dyn Environment,
    context: &'a mut Context,
    plan: TimePlan,
}

impl Engine<'_> {
    async fn solve(&mut self) -> Result<(), Stop> {
        let dataset = self.dataset().await?;
        let knowledge = Knowledge::for_kind(&dataset.kind, &dataset.task)
            .ok_or_else(|| Stop::Fallback(format!("{NO_PIPELINE} ({} {})", dataset.kind, dataset.task)))?;
        let profile = self.profile().await?;
        let candidates = knowledge.suitable(&profile);
        let names: Vec<_> = candidates.iter().map(|candidate| candidate.name.as_str()).collect();
        let text = format!("{} candidates: {}", names.len(), names.join(", "));
        self.context.note_with("select", text, json!({ "profile": profile, "candidates": names }))?;
        let mut trained = self.train_all(&candidates).await?;
        if trained.is_empty() {
            return Err(Stop::Fallback("no candidate could be trained in time".to_owned()));
        }
        self.tune_best(&candidates, &mut trained, &dataset.metric).await?;
        self.ensemble(&trained, &dataset.metric).await?;
        self.verify().await?;
        self.validate().await
    }

    /// Takes a step whose outcome may be a failure; the end of the episode stops the engine.
    async fn try_step(&mut self, action: Action) -> Result<Observation, Stop> {
        match step(self.environment, action).await? {
            Some(seen) => Ok(seen),
            None => Err(Stop::Over),
        }
    }

    async fn dataset(&mut self) -> Result<Dataset, Stop> {
        let read = Action::Read { path: "/data/dataset.json".to_owned(), range: None };
        let seen = self.try_step(read).await?;
        if !seen.is_ok() {
            return Err(Stop::Fallback(format!("{NO_PIPELINE} (there is no /data/dataset.json)")));
        }
        serde_json::from_str(&seen.stdout.content)
            .map_err(|error| Stop::Fallback(format!("{NO_PIPELINE} (dataset.json: {error})")))
    }

    async fn profile(&mut self) -> Result<Profile, Stop> {
        self.context.note("profile", "looks at the data")?;
        for (name, content) in scripts::FILES {
            let path = format!("{}/{name}", scripts::WORK);
            let write = Action::Write { path, content: content.to_owned() };
            if must(self.environment, "write the engine's scripts", write).await?.is_none() {
                return Err(Stop::Over);
            }
        }
        let seen = self.try_step(Action::shell(scripts::command("profile.py", ""))).await?;
        last_line(&seen)
            .ok_or_else(|| Stop::Fallback(format!("the data cannot be read:\n{}", explain(&seen))))
    }

    async fn train_all(&mut self, candidates: &[&Candidate]) -> Result<Vec<Trained>, Stop> {
        let mut trained = Vec::new();
        for (index, candidate) in candidates.iter().enumerate() {
            let left = candidates.len() - index;
            let elapsed = self.context.elapsed();
            let last_chance = || if trained.is_empty() { self.plan.last_chance(elapsed) } else { None };
            let Some(time) = self.plan.candidate(elapsed, left).or_else(last_chance) else {
                self.context.note("train", format!("no time for {left} more candidates"))?;
                break;
            };
            let phase = format!("train {}/{}", index + 1, candidates.len());
            self.context.note(&phase, format!("{}: {}", candidate.name, candidate.why))?;
            let script = scripts::training(candidate, self.context.seed, time);
            trained.extend(self.run_script(&candidate.name, script, time).await?);
        }
        Ok(trained)
    }

    async fn tune_best(
        &mut self,
        candidates: &[&Candidate],
        trained: &mut Vec<Trained>,
        metric: &str,
    ) -> Result<(), Stop> {
        let mut ranked: Vec<_> = trained.clone();
        ranked.sort_by(|a, b| b.score.total_cmp(&a.score));
        let tunable = |trained: &Trained| {
            candidates
                .iter()
                .copied()
                .find(|candidate| candidate.name == trained.name && !candidate.space.is_empty())
        };
        let chosen: Vec<_> = ranked.iter().filter_map(|t| Some((tunable(t)?, t.raw))).take(TUNED).collect();
        for (index, (candidate, before)) in chosen.iter().enumerate() {
            let Some(time) = self.plan.tuning(self.context.elapsed(), chosen.len() - index) else { break };
            let phase = format!("tune {}/{}", index + 1, chosen.len());
            let text =
                format!("{} ({metric} {before:.4} so far) for {:.0} s", candidate.name, time.as_secs_f64());
            self.context.note(&phase, text)?;
            let name = format!("{}-tuned", candidate.name);
            let script = scripts::tuning(candidate, self.context.seed, time);
            trained.extend(self.run_script(&name, script, time).await?);
        }
        Ok(())
    }

    /// Writes and runs a training script; one that fails is noted and left out.
    async fn run_script(
        &mut self,
        name: &str,
        script: String,
        time: Duration,
    ) -> Result<Option<Trained>, Stop> {
        // The prefix keeps a candidate's script from being taken for the library it is named after.
        let script_name = format!("train_{name}.py");
        let path = format!("{}/{script_name}", scripts::WORK);
        let write = Action::Write { path, content: script };
        if must(self.environment, "write a training script", write).await?.is_none() {
            return Err(Stop::Over);
        }
        // Loading the libraries anew, after a deadline killed the process that had them, takes some seconds.
        let timeout = Some(time.as_secs_f64() * 1.3 + 10.0);
        let command = scripts::command(&script_name, "");
        let command = Action::Shell { command, timeout, background: false };
        let seen = self.try_step(command).await?;
        let outcome = if seen.is_ok() { last_line::<Trained>(&seen) } else { None };
        match &outcome {
            Some(trained) => {
                let text = format!("{name}: {:.5} in {:.1} s", trained.raw, trained.seconds);
                let data =
                    json!({ "candidate": name, "score": trained.raw, "parameters": trained.parameters });
                self.context.note_with("trained", text, data)?;
            }
            None => {
                let text = format!("{name} was left out:\n{}", explain(&seen));
                self.context.note_with("failed", text, json!({ "candidate": name }))?;
            }
        }
        Ok(outcome)
    }

    async fn ensemble(&mut self, trained: &[Trained], metric: &str) -> Result<(), Stop> {
        self.context.note("ensemble", format!("of {} candidates", trained.len()))?;
        let names: Vec<_> = trained.iter().map(|trained| trained.name.as_str()).collect();
        let arguments = format!("{} {}", self.context.seed, names.join(" "));
        let command = scripts::command("ensemble.py", &arguments);
        let seen = self.try_step(Action::shell(command)).await?;
        let ensemble: Option<Ensemble> = if seen.is_ok() { last_line(&seen) } else { None };
        let ensemble =
            ensemble.ok_or_else(|| Stop::Fallback(format!("the ensemble failed:\n{}", explain(&seen))))?;
        let text = format!("cross-validated {metric} {:.5}: {}", ensemble.raw, ensemble.weights);
        self.context.note_with(
            "ensemble",
            text,
            json!({ "weights": ensemble.weights, "score": ensemble.raw }),
        )?;
        Ok(())
    }

    async fn verify(&mut self) -> Result<(), Stop> {
        self.context.note("verify", "checks the submission's form")?;
        let seen = self.try_step(Action::shell(scripts::command("verify.py", ""))).await?;
        if seen.is_ok() {
            Ok(())
        } else {
            Err(Stop::Fallback(format!("the submission has the wrong form:\n{}", explain(&seen))))
        }
    }

    async fn validate(&mut self) -> Result<(), Stop> {
        if self.environment.task().validation.limit == 0 {
            return Ok(());
        }
        self.context.note("validate", "has the submission scored on the validation split")?;
        let seen = self.try_step(Action::Validate).await?;
        match (&seen.validation, &seen.error) {
            (Some(score), _) => {
                let text = format!("{} {:.5} on the validation split", score.metric, score.raw);
                Ok(self.context.note("validate", text)?)
            }
            (None, Some(reason)) => Err(Stop::Fallback(format!("the submission was rejected: {reason}"))),
            (None, None) => Ok(()),
        }
    }
}

/// Reads the last line of a script's output as JSON.
fn last_line<T: serde::de::DeserializeOwned>(seen: &Observation) -> Option<T> {
    serde_json::from_str(seen.stdout.content.trim_end().lines().last()?).ok()
}
