//! What a language model was asked and what it answered, as the journal has it.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// Tokens of one call, as the provider counts them; estimated where it does not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenUsage {
    /// Tokens of the request, cached ones included.
    pub prompt: u64,
    /// Tokens of the answer, reasoning included.
    pub completion: u64,
    /// Tokens of the request that the provider had in its cache.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cached: u64,
    /// Tokens of the answer that are reasoning.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub reasoning: u64,
    /// The provider told no counts, so these are estimates.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub estimated: bool,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl TokenUsage {
    /// What counts against a budget of tokens: those of the request and of the answer.
    pub fn total(&self) -> u64 {
        self.prompt.saturating_add(self.completion)
    }
}

/// A tool that the model asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCall {
    /// The provider's name for the call, which the tool's answer repeats.
    pub id: String,
    /// The tool.
    pub name: String,
    /// Its arguments: JSON if the model kept to it, and anything if not.
    pub arguments: String,
}

/// One call of a model: the request by its digest, the answer whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelCall {
    /// The model, as it was asked for.
    pub model: String,
    /// Who asked, in a word or two: `react`, `planner`.
    pub role: String,
    /// The request's key: the same in recordings.
    pub request: Digest,
    /// The request's whole text in the blob store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<Digest>,
    /// What came of it.
    pub outcome: CallOutcome,
    /// What it used.
    pub tokens: TokenUsage,
    /// What it cost, in US dollars; absent where no price is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usd: Option<f64>,
    /// Seconds from the first attempt to the end.
    pub seconds: f64,
    /// Attempts that it took, counted from 1.
    pub attempts: u32,
    /// In a replay, the recorded request that was answered so, where what tools came to before differs from this one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recorded_for: Option<Digest>,
}

/// What came of a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum CallOutcome {
    /// The model answered.
    Answered {
        /// The text.
        text: String,
        /// What it thought, where the provider tells.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reasoning: Option<String>,
        /// The tools it asked for.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        tool_calls: Vec<ToolCall>,
        /// Why it stopped: `stop`, `length`, `tool_calls`, or the provider's own word.
        finish: String,
    },
    /// It did not.
    Failed {
        /// Why, without secrets.
        reason: String,
    },
}
