//! The built-in AutoML engine: no language model, and it says so.
//!
//! It reads `/data/dataset.json`, looks at the data, picks candidate pipelines from a knowledge base kept as data
//! files, writes a module for each and cross-validates it in the sandbox under a time plan, tunes the best, selects an
//! ensemble, verifies the submission's form, validates once, and submits. A kind of data that it has no pipeline for
//! gets the task's baseline, and the journal says that.
//!
//! [`engine`] has the stages one by one, for whoever drives them with plans of their own.

use async_trait::async_trait;
use mlgym::{Agent, AgentError, Context, Environment};
use serde_json::json;

use crate::steps::{run_baseline, submit};

pub mod assessment;
pub mod constraint;
pub mod engine;
pub mod kinds;
pub mod knowledge;
pub mod plan;
mod race;
pub mod scripts;
mod time;

use engine::{Engine, Stop};
use plan::{Execution, Plan};

/// Says in the journal what every user should know.
const NO_MODEL: &str = "built-in AutoML engine: uses no language model";

/// The AutoML agent.
#[derive(Debug, Default)]
pub struct AutoMl {
    /// Libraries that no candidate may use.
    forbidden: Vec<String>,
}

impl AutoMl {
    /// Makes the agent of a planned episode. Of the plan's options it reads `forbid`, a list of libraries.
    pub fn new(plan: &mlgym_journal::EpisodePlan) -> Self {
        let named = plan.options.get("forbid").and_then(|value| value.as_array());
        let names = named.into_iter().flatten().filter_map(|name| name.as_str());
        Self { forbidden: names.map(str::to_owned).collect() }
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
        let mut engine = Engine::new(environment, context, &first.remaining);
        match solve(&mut engine, context, &self.forbidden).await {
            Ok(_) => submit(environment).await,
            Err(Stop::Over) => Ok(()),
            Err(Stop::Failed(error)) => Err(error),
            Err(Stop::Fallback(reason)) => {
                context.note("baseline", format!("{reason}: submits the task's baseline"))?;
                if run_baseline(environment, "automl").await? { submit(environment).await } else { Ok(()) }
            }
        }
    }
}

/// Carries out the knowledge base's plan up to the submission.
async fn solve(engine: &mut Engine<'_>, context: &Context, forbidden: &[String]) -> Result<Execution, Stop> {
    let dataset = engine.dataset().await?;
    let knowledge = Engine::knowledge(&dataset)?;
    let profile = engine.profile().await?;
    let mut candidates = knowledge.suitable(&profile);
    candidates.retain(|candidate| !forbidden.iter().any(|library| candidate.uses(library)));
    context.note_with("select", "candidates that suit the data", json!({ "profile": profile }))?;
    let plan =
        Plan::new("knowledge", "what is known to suit such data", candidates.into_iter().cloned().collect());
    let execution = engine.execute(&plan).await?;
    engine.verify().await?;
    // A model that was asked for is worth more than another look at its score, should time run out.
    if engine.environment().task().artifacts.iter().any(|path| path == scripts::MODEL)
        && let Err(Stop::Fallback(reason)) = engine.refit(&execution).await
    {
        // The submission is worth handing in without it.
        context.note("refit", reason)?;
    }
    engine.validate().await?;
    Ok(execution)
}
