//! The agents that come with the gym.
//!
//! `automl` is an AutoML engine that uses no language model; `react` is one model with the gym's [`tools`]; `command` is
//! any program that speaks JSON lines; `human` is a person at a terminal; `replay` takes a journal's actions again;
//! `repository` runs a repository's own program;
//! `oracle`, `baseline`, `constant`, `random-forest` and `noop` are the fixed points that tasks are checked against. All
//! act through the environment's steps alone: this crate knows nothing of databases, of terminals only the trait that a
//! person's brings, and only its [`redteam`] looks at sandboxes from outside.

pub mod automl;
pub mod check;
pub mod coder;
pub mod command;
pub mod dag;
pub mod deliver;
#[cfg(test)]
mod fake;
pub mod history;
pub mod human;
pub mod memory;
pub mod models;
pub mod options;
pub mod oracle;
pub mod predictors;
pub mod react;
pub mod redteam;
pub mod registry;
mod rendering;
pub mod replay;
pub mod repository;
pub mod rivals;
mod steps;
pub mod tools;

pub use automl::AutoMl;
pub use registry::{AgentInfo, Agents, UnknownAgent};
