//! How the engine spends its time: part of the episode's budget, shared between the race, the tuning and the rest.

use std::time::Duration;

use mlgym_journal::Remaining;

/// What is spent where no budget says otherwise.
const USUAL: f64 = 60.0;

/// What is spent of a budget at most; the rest is for the last ensemble, the validation and the submission.
const SHARE: f64 = 0.82;

/// What is spent of any budget when there is no model yet.
const SHARE_AT_WORST: f64 = 0.85;

/// The part of the time that goes to the race, in which every candidate is measured.
const RACE: f64 = 0.55;

/// Where tuning ends; the rest is for repetitions.
const TUNING: f64 = 0.85;

/// Less than this is not worth starting anything for.
const LEAST: f64 = 1.5;

/// The engine's time plan; all times count from the agent's start, in seconds.
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
        let total = if budget.is_finite() { SHARE * budget } else { USUAL };
        Self { start: 0.0, total, budget }
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

    /// Returns what is left of the race.
    pub(crate) fn race(self, elapsed: Duration) -> Option<f64> {
        self.left(elapsed, RACE)
    }

    /// Returns what is left for tuning.
    pub(crate) fn tuning(self, elapsed: Duration) -> Option<f64> {
        self.left(elapsed, TUNING)
    }

    /// Returns what is left of everything.
    pub(crate) fn all(self, elapsed: Duration) -> Option<f64> {
        self.left(elapsed, 1.0)
    }

    fn left(self, elapsed: Duration, part: f64) -> Option<f64> {
        let left = self.start + self.total * part - elapsed.as_secs_f64();
        (left >= LEAST).then_some(left)
    }

    /// Returns the most that a candidate may take when the plan's time is over and none has been measured yet, as on a
    /// machine that is busy: any model is better than the baseline.
    pub(crate) fn last_chance(self, elapsed: Duration) -> Option<f64> {
        let left = SHARE_AT_WORST * self.budget - elapsed.as_secs_f64();
        (left.is_finite() && left >= LEAST).then_some(left / 2.0)
    }

    /// Tells whether more time has passed than is usual, so that going on must be worth it.
    pub(crate) fn is_long(self, elapsed: Duration) -> bool {
        elapsed.as_secs_f64() > self.start + USUAL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(wall: f64) -> TimePlan {
        TimePlan::new(&Remaining { wall_s: Some(wall), ..Remaining::default() })
    }

    fn check(left: Option<f64>, expected: Option<f64>) {
        let is_near = match (left, expected) {
            (Some(left), Some(expected)) => (left - expected).abs() < 1e-6,
            (left, expected) => left == expected,
        };
        assert!(is_near, "{left:?} is not {expected:?}");
    }

    #[test]
    fn budgets_are_used_and_not_overrun() {
        check(plan(100.0).all(Duration::ZERO), Some(82.0));
        check(plan(100.0).race(Duration::from_secs(40)), Some(5.1));
        check(plan(100.0).race(Duration::from_secs(44)), None);
        check(plan(100.0).last_chance(Duration::from_secs(81)), Some(2.0));
        check(plan(100.0).last_chance(Duration::from_secs(84)), None);
        check(TimePlan::new(&Remaining::default()).all(Duration::ZERO), Some(USUAL));
        check(TimePlan::new(&Remaining::default()).last_chance(Duration::from_secs(90)), None);
    }

    #[test]
    fn a_plan_gets_its_share_of_what_is_left() {
        let part = plan(100.0).part(Duration::from_secs(22), 0.5);
        check(part.all(Duration::from_secs(30)), Some(22.0));
        check(part.all(Duration::from_secs(52)), None);
    }
}
