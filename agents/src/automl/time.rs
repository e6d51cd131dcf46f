//! How the engine spends its time: part of the episode's budget, shared between candidates and tuning.

use std::time::Duration;

use mlgym_journal::Remaining;

/// What is aimed at when the budget is large: more than this brings little on tables that fit in memory.
const USUAL: f64 = 60.0;

/// What is spent of a large budget beyond the usual.
const SHARE_OF_LARGE: f64 = 0.1;

/// What is spent of a small budget at most; the rest is for the ensemble, the validation and the submission.
const SHARE_OF_SMALL: f64 = 0.65;

/// What is spent of any budget when there is no model yet.
const SHARE_AT_WORST: f64 = 0.85;

/// The part of the time that goes to the first round, in which every candidate is tried once.
const FIRST_ROUND: f64 = 0.7;

/// Less than this is not worth starting Python for.
const LEAST: f64 = 4.0;

/// The engine's time plan; all times count from the agent's start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TimePlan {
    /// When this part of the plan began.
    start: f64,
    /// How long it is.
    total: f64,
    budget: f64,
}

impl TimePlan {
    /// Plans by what the budgets leave at the reset.
    pub(crate) fn new(remaining: &Remaining) -> Self {
        let limits = [remaining.wall_s, remaining.compute_s];
        let budget = limits.into_iter().flatten().fold(f64::INFINITY, f64::min);
        let wish = if budget.is_finite() { USUAL.max(SHARE_OF_LARGE * budget) } else { USUAL };
        Self { start: 0.0, total: wish.min(SHARE_OF_SMALL * budget), budget }
    }

    /// Plans a share of what is left of the plan's time, from now on. All that is left is no new beginning: what was
    /// spent before counts as spent.
    pub(crate) fn part(self, elapsed: Duration, share: f64) -> Self {
        if share >= 1.0 {
            return self;
        }
        let start = elapsed.as_secs_f64();
        let left = (self.start + self.total - start).max(0.0);
        Self { start, total: left * share.max(0.0), ..self }
    }

    /// Returns the most that the next of `left` candidates may take; `None` when there is no time for it. One
    /// candidate may take up to three fair shares, because most take much less than one.
    pub(crate) fn candidate(self, elapsed: Duration, left: usize) -> Option<Duration> {
        let rest = self.start + self.total * FIRST_ROUND - elapsed.as_secs_f64();
        share(rest, left, 3.0)
    }

    /// Returns the most that a candidate may take when the plan's time is over and none has been trained yet, as on a
    /// machine that is busy: any model is better than the baseline.
    pub(crate) fn last_chance(self, elapsed: Duration) -> Option<Duration> {
        share(SHARE_AT_WORST * self.budget - elapsed.as_secs_f64(), 1, 0.5)
            .filter(|_| self.budget.is_finite())
    }

    /// Returns how long the next of `left` candidates is tuned; `None` when there is no time for it.
    pub(crate) fn tuning(self, elapsed: Duration, left: usize) -> Option<Duration> {
        share(self.start + self.total - elapsed.as_secs_f64(), left, 1.0)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a handful of candidates")]
fn share(rest: f64, left: usize, generosity: f64) -> Option<Duration> {
    let time = (rest / left.max(1) as f64 * generosity).min(rest);
    // Whole seconds, because the time goes into a script that is to be the same from run to run.
    (time >= LEAST).then(|| Duration::from_secs_f64(time.floor()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(wall: f64) -> TimePlan {
        TimePlan::new(&Remaining { wall_s: Some(wall), ..Remaining::default() })
    }

    #[test]
    fn small_budgets_are_not_overrun_and_large_ones_are_used() {
        assert_eq!(plan(60.0).total, 39.0);
        assert_eq!(plan(600.0).total, USUAL);
        assert_eq!(plan(7200.0).total, 720.0);
        assert_eq!(TimePlan::new(&Remaining::default()).total, USUAL);
    }

    #[test]
    fn time_is_shared_until_there_is_none() {
        let plan = plan(600.0);
        assert_eq!(plan.candidate(Duration::ZERO, 7), Some(Duration::from_secs(18)));
        assert_eq!(plan.candidate(Duration::from_secs(50), 1), None);
        assert_eq!(plan.tuning(Duration::from_secs(45), 2), Some(Duration::from_secs(7)));
        assert_eq!(plan.tuning(Duration::from_secs(80), 2), None);
        assert_eq!(plan.last_chance(Duration::from_secs(80)), Some(Duration::from_secs(215)));
        assert_eq!(plan.last_chance(Duration::from_secs(508)), None);
    }

    #[test]
    fn a_plan_gets_its_share_of_what_is_left() {
        let part = plan(600.0).part(Duration::from_secs(20), 0.5);
        assert_eq!((part.start, part.total), (20.0, 20.0));
        assert_eq!(part.tuning(Duration::from_secs(30), 1), Some(Duration::from_secs(10)));
        assert_eq!(part.tuning(Duration::from_secs(40), 1), None);
    }
}
