//! The gym: episodes with Gymnasium's semantics, the agents' contract, and the runner of many episodes.
//!
//! The rules of an episode ([`rules`]) are synchronous functions on state; sandboxes, graders and files are at
//! the rim ([`episode`]). This crate knows nothing of language models or SQL, and never knows who watches it:
//! it writes events to a journal and to a channel.

pub mod agent;
pub mod environment;
pub mod recorder;

pub use agent::{Agent, AgentError, AgentFactory, Context, Policy, PolicyAgent};
pub use environment::{Environment, EnvironmentError, Info, Transition};
pub use mlgym_journal::{Action, Budgets, LineRange, Observation};
pub use recorder::{Recorder, RunEvent};
