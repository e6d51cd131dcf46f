//! The agents that come with the gym.
//!
//! `automl` is an AutoML engine that uses no language model; `oracle`, `baseline`, `constant`, `random-forest` and
//! `noop` are the fixed points that tasks are checked against. All act through the environment's steps alone: this
//! crate knows nothing of databases or terminals, and only its [`redteam`] looks at sandboxes from outside.

pub mod automl;
pub mod check;
pub mod deliver;
pub mod models;
pub mod oracle;
pub mod predictors;
pub mod redteam;
pub mod registry;
pub mod rivals;
mod steps;

pub use automl::AutoMl;
pub use registry::{AgentInfo, Agents, UnknownAgent};
