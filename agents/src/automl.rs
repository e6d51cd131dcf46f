//! The built-in AutoML engine: no language model, and it says so.
//!
//! It reads `/data/dataset.json`, looks at the data, picks candidate pipelines from a knowledge base kept as data
//! files, writes a module for each and cross-validates it in the sandbox under a time plan, tunes the best, selects an
//! ensemble, verifies the submission's form, validates once, and submits. A kind of data that it has no pipeline for
//! gets the task's baseline, and the journal says that.
//!
//! [`engine`] has the stages of training one by one; [`pipeline`] drives them, from the request to what is handed in, with a
//! language model's proposals where there is one and from the knowledge base where there is none.

use async_trait::async_trait;
use std::sync::Arc;

use mlgym::{Agent, AgentError, Context, Environment};

use crate::models::{EpisodeModel, Model};
use crate::react::React;
use crate::steps::{run_baseline, submit};

mod ask;
pub mod assessment;
pub mod constraint;
pub mod engine;
pub mod evidence;
mod freeform;
mod judge;
pub mod kinds;
pub mod knowledge;
pub mod pipeline;
pub mod plan;
pub mod planning;
mod prompts;
mod race;
pub mod request;
pub mod scripts;
mod search;
mod time;

use engine::{Engine, Stop};
use pipeline::{Options, Pipeline, Winner};

/// Says in the journal what every user should know.
const NO_MODEL: &str = "built-in AutoML engine: uses no language model";

/// The AutoML agent.
#[derive(Debug, Default)]
pub struct AutoMl {
    model: Option<Arc<dyn Model>>,
    options: Options,
}

impl AutoMl {
    /// Makes the agent with a model to plan with, or none.
    pub fn new(model: Option<Arc<dyn Model>>, options: Options) -> Self {
        Self { model, options }
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
        match &self.model {
            None => context.note("start", NO_MODEL)?,
            Some(model) => context.note("start", format!("plans with {}", model.name()))?,
        }
        let pipeline = Pipeline {
            context,
            task: environment.task().clone(),
            model: self
                .model
                .clone()
                .map(|model| Arc::new(EpisodeModel::new(model, context)) as Arc<dyn Model>),
            options: &self.options,
        };
        let mut remaining = first.remaining.clone();
        if let Some(bound) = self.options.train_seconds() {
            remaining.wall_s = Some(remaining.wall_s.map_or(bound, |wall| wall.min(bound)));
        }
        let mut engine = Engine::new(environment, context, &remaining);
        match pipeline.solve(&mut engine).await {
            Ok(Winner::Trunk) => submit(environment).await,
            Ok(Winner::NoPipeline(reason)) => {
                context.note("operate", format!("{reason}: a model plans and works by itself"))?;
                let (Some(inner), Some(model)) = (&self.model, &pipeline.model) else { return Ok(()) };
                let operator = React::new(inner.clone(), freeform::options());
                freeform::solve(&pipeline, model.as_ref(), &operator, environment, &first).await
            }
            Ok(Winner::Fork(mut branch)) => submit(branch.environment.as_mut()).await,
            Err(Stop::Over) => Ok(()),
            Err(Stop::Failed(error)) => Err(error),
            Err(Stop::Fallback(reason)) => {
                context.note("baseline", format!("{reason}: submits the task's baseline"))?;
                if run_baseline(environment, "automl").await? { submit(environment).await } else { Ok(()) }
            }
        }
    }
}
