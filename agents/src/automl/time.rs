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

/// Less than this share of the time is not worth a round of plans.
const ROUND: f64 = 0.1;

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

    /// Plans for a budget of at most so many seconds.
    pub(crate) fn within(self, seconds: f64) -> Self {
        if seconds >= self.budget {
            return self;
        }
        Self { total: SHARE * seconds - self.start, budget: seconds, ..self }
    }

    /// Plans a share of what is left of the plan's time, from now on: what was spent before, on a language model's
    /// answers for instance, shortens each phase and leaves out none. Where no budget says when the end is, what is
    /// usual is left to whoever begins.
    pub(crate) fn part(self, elapsed: Duration, share: f64) -> Self {
        let start = elapsed.as_secs_f64();
        let left = if self.budget.is_finite() { (self.start + self.total - start).max(0.0) } else { USUAL };
        Self { start, total: left * share.clamp(0.0, 1.0), ..self }
    }

    /// Tells whether there is time for another round of plans, after which little would be left.
    pub(crate) fn is_worth_a_round(self, elapsed: Duration) -> bool {
        !self.budget.is_finite() || self.left(elapsed, 1.0).is_some_and(|left| left >= ROUND * self.total)
    }

    /// Tells what share of the time something took.
    pub(crate) fn share_of(self, duration: Duration) -> f64 {
        duration.as_secs_f64() / self.total.max(f64::MIN_POSITIVE)
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
        check(plan(100.0).within(50.0).all(Duration::ZERO), Some(41.0));
        check(plan(100.0).within(200.0).all(Duration::ZERO), Some(82.0));
        check(TimePlan::new(&Remaining::default()).within(50.0).all(Duration::ZERO), Some(41.0));
        assert!(plan(100.0).is_worth_a_round(Duration::from_secs(73)));
        assert!(!plan(100.0).is_worth_a_round(Duration::from_secs(75)));
        assert!(TimePlan::new(&Remaining::default()).is_worth_a_round(Duration::from_secs(999)));
    }

    #[test]
    fn a_plan_gets_its_share_of_what_is_left() {
        let part = plan(100.0).part(Duration::from_secs(22), 0.5);
        check(part.all(Duration::from_secs(30)), Some(22.0));
        check(part.all(Duration::from_secs(52)), None);
    }

    #[test]
    fn a_plan_that_begins_late_has_every_phase_and_ends_as_early_as_any() {
        let late = plan(300.0).part(Duration::from_secs(146), 1.0);
        check(late.race(Duration::from_secs(146)), Some(55.0));
        check(late.all(Duration::from_secs(146)), Some(100.0));
        check(plan(300.0).all(Duration::from_secs(146)), Some(100.0));
        assert!(!late.is_long(Duration::from_secs(200)) && late.is_long(Duration::from_secs(207)));
        let endless = TimePlan::new(&Remaining::default()).part(Duration::from_secs(500), 1.0);
        check(endless.all(Duration::from_secs(500)), Some(USUAL));
    }
}
