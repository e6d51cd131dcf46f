//! The agents by name.

use mlgym::{Agent, AgentFactory};
use mlgym_journal::{AgentName, EpisodePlan};
use mlgym_tasks::nearest;
use serde::Serialize;

use crate::automl::AutoMl;
use crate::oracle::{Baseline, Noop, Oracle};
use crate::predictors::Predictor;

/// What people are told about an agent.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct AgentInfo {
    /// Its name.
    pub name: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
}

/// All agents, in the order they are listed.
const AGENTS: [AgentInfo; 6] = [
    AgentInfo {
        name: "automl",
        about: "a built-in AutoML engine, without a language model: profile, candidates, tuning, ensemble",
    },
    AgentInfo { name: "baseline", about: "runs the task's naive baseline" },
    AgentInfo { name: "constant", about: "predicts the mean, or the shares of the classes" },
    AgentInfo { name: "noop", about: "does nothing and submits what is there: must not score" },
    AgentInfo { name: "oracle", about: "runs the task's reference solution" },
    AgentInfo { name: "random-forest", about: "a random forest with default settings" },
];

/// Says that there is no agent of a name.
#[derive(Debug, Clone, thiserror::Error)]
#[error("find the agent {name:?}{}", hint(*.nearest))]
pub struct UnknownAgent {
    name: String,
    nearest: Option<&'static str>,
}

fn hint(nearest: Option<&str>) -> String {
    let known = AGENTS.map(|agent| agent.name).join(", ");
    match nearest {
        Some(nearest) => format!(": did you mean {nearest:?}? (known: {known})"),
        None => format!(" (known: {known})"),
    }
}

/// Makes the agents that come with the gym.
#[derive(Debug, Clone, Copy, Default)]
pub struct Agents;

impl Agents {
    /// Lists the agents.
    pub fn list() -> &'static [AgentInfo] {
        &AGENTS
    }

    /// Checks a name as a user typed it.
    pub fn find(name: &str) -> Result<AgentName, UnknownAgent> {
        let known = AGENTS.iter().map(|agent| agent.name);
        let found = known.clone().any(|agent| agent == name);
        let unknown = || UnknownAgent { name: name.to_owned(), nearest: nearest(name, known) };
        if found { AgentName::new(name).map_err(|_| unknown()) } else { Err(unknown()) }
    }
}

impl AgentFactory for Agents {
    fn create(&self, plan: &EpisodePlan) -> Option<Box<dyn Agent>> {
        Some(match plan.agent.as_str() {
            "automl" => Box::new(AutoMl::new(plan)),
            "baseline" => Box::new(Baseline),
            "constant" => Box::new(Predictor::constant()),
            "noop" => Box::new(Noop),
            "oracle" => Box::new(Oracle),
            "random-forest" => Box::new(Predictor::random_forest()),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_agent_is_made_and_a_slip_is_answered_with_the_nearest() {
        for agent in Agents::list() {
            let name = Agents::find(agent.name).unwrap();
            assert!(Agents.create(&plan(&name)).is_some(), "{name}");
        }
        let error = Agents::find("autml").unwrap_err().to_string();
        assert!(error.contains("did you mean \"automl\"?"), "{error}");
        assert!(Agents.create(&plan(&AgentName::new("gpt").unwrap())).is_none());
    }

    fn plan(agent: &AgentName) -> EpisodePlan {
        serde_json::from_value(serde_json::json!({
            "episode": "e", "task": "t", "task_dir": "/", "task_digest": "0".repeat(64), "agent": agent,
            "seed": 0, "budgets": {},
        }))
        .unwrap()
    }
}
