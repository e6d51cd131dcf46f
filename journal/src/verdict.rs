//! Verdicts: what was checked, how it came out, why, and by what evidence.

use serde::{Deserialize, Serialize};

/// How a check came out. There is no third way: what could not be checked did not pass, and its reason says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It holds.
    Passed,
    /// It does not, or nobody could tell.
    Failed,
}

/// Who judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Judge {
    /// Something was run, and this is what it did.
    Execution,
    /// A rule over facts that are known.
    Rule,
    /// A language model. It can add a failure to what execution says, and never take one away.
    Model,
}

/// The stages of a pipeline that end in a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerdictStage {
    /// Is the request about machine learning, and does it say enough?
    Request,
    /// Is the plan one that can be carried out with what there is?
    Plan,
    /// Was the plan carried out, and what did that measure?
    Execution,
    /// Was it chosen over the others?
    Selection,
    /// Does what is handed in do what it is to do?
    Implementation,
    /// Does it keep a constraint that the user stated?
    Constraint,
}

/// A verdict of a pipeline's stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The stage.
    pub stage: VerdictStage,
    /// What was judged: a plan's or a candidate's name, a constraint.
    pub subject: String,
    /// The round of revision, counted from 0.
    #[serde(default)]
    pub round: u32,
    /// How it came out.
    pub outcome: Outcome,
    /// Who judged.
    pub judge: Judge,
    /// Why, in words.
    pub reason: String,
    /// What it rests on: `step:12`, `call:<digest>`, `knowledge:<name>`, `memory:<id>`, `candidate:<name>`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<String>,
    /// What was measured, by name, where something was.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub measured: std::collections::BTreeMap<String, f64>,
}

impl Verdict {
    /// Tells whether it passed.
    pub fn passed(&self) -> bool {
        self.outcome == Outcome::Passed
    }
}
