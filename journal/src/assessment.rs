//! How a whole solution came out, as AutoML-Agent's paper measures it: success, performance, and their mean.

use serde::{Deserialize, Serialize};

/// Success rate, normalised performance score and comprehensive score, each from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Assessment {
    /// 0 not runnable, 0.25 runnable, 0.5 deployed, 0.75 meets the constraints partly, 1 fully.
    pub sr: f64,
    /// The score itself where the metric is bounded, `1 / (1 + s)` for a loss.
    pub nps: f64,
    /// `½ SR + ½ NPS`.
    pub cs: f64,
}
