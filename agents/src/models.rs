//! Language models: what they are asked, what they answer, and who stands between.
//!
//! [`Model`] is the one contract. A client speaks a provider's protocol; wrappers around it retry, meter, record or
//! replay, and each can be used and tested alone. Nothing here knows what an agent asks for.

mod api;
pub mod scripted;

pub use api::{Completion, Finish, Message, Model, ModelError, Request, Sampling, Tool, ToolChoice};
