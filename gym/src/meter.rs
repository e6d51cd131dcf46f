//! What an agent spends outside of its sandbox, and the time it sees pass.

use std::sync::Arc;
use std::time::Duration;

use mlgym_journal::{BranchId, BudgetKind, Remaining};
use tokio::time::Instant;

/// Counts tokens and money against an episode's budgets, whatever they are spent on.
pub trait Meter: Send + Sync + std::fmt::Debug {
    /// Counts what was spent. The error names the budget that is over with it: the episode ends as `truncated`, and what
    /// lies in its trunk is graded.
    fn charge(&self, tokens: u64, usd: f64) -> Result<(), BudgetKind>;

    /// Returns what is left; absent budgets are unlimited.
    fn remaining(&self) -> Remaining;
}

/// Counts nothing and limits nothing, for agents outside of an episode.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unmetered;

impl Meter for Unmetered {
    fn charge(&self, _: u64, _: f64) -> Result<(), BudgetKind> {
        Ok(())
    }

    fn remaining(&self) -> Remaining {
        Remaining::default()
    }
}

/// An agent's only way to see time pass. What an agent decides by it can be repeated when the readings can.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// Tells how long the agent has been running.
    fn elapsed(&self) -> Duration;

    /// Returns the clock that a branch reads: branches run side by side, so each has a sequence of readings of its own.
    fn on(&self, branch: BranchId) -> Arc<dyn Clock>;

    /// So many times longer than usual a sandbox's program should be let run before it is cut off: it runs in the sandbox's own
    /// time. Where readings are recorded or repeated, a slower machine is to come to the same.
    fn patience(&self) -> f64 {
        1.0
    }
}

/// The time that really passes.
#[derive(Debug, Clone, Copy)]
pub struct WallClock(Instant);

impl WallClock {
    /// Starts now.
    pub fn start() -> Self {
        Self(Instant::now())
    }
}

impl Clock for WallClock {
    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    fn on(&self, _: BranchId) -> Arc<dyn Clock> {
        Arc::new(*self)
    }
}
