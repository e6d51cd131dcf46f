//! The decisions of the race: who goes on after a first look, and how much is tried next. They are functions of scores
//! and of durations that the host measured; nothing here reads a clock.

/// Rows of the first fold that a first look fits on, where there are many more.
pub(crate) const LOOK_ROWS: u64 = 3000;

/// Trials of one batch at most, so that a batch that goes wrong costs little.
const MOST_TRIALS: f64 = 12.0;

/// Trials without improvement after which a candidate is left alone.
const PATIENCE: u64 = 24;

/// Measuring takes somewhat more than in proportion to the rows.
const GROWTH: f64 = 1.2;

/// What a first look at a candidate showed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Look {
    /// Its module.
    pub(crate) module: String,
    /// More is better.
    pub(crate) score: f64,
    /// How long it took.
    pub(crate) seconds: f64,
}

/// Returns the rows that a first look fits on; 0 for all of the first fold, which is kept then.
pub(crate) fn look_rows(rows: u64) -> u64 {
    if rows > 3 * LOOK_ROWS { LOOK_ROWS } else { 0 }
}

/// Says by what a first look's duration is to be multiplied for the folds that are left.
#[expect(clippy::cast_precision_loss, reason = "row counts are far below 2^52")]
pub(crate) fn growth(rows: u64, folds: u64) -> f64 {
    let fitted = rows as f64 * (folds as f64 - 1.0).max(1.0) / folds.max(1) as f64;
    match look_rows(rows) {
        0 => (folds as f64 - 1.0).max(0.0),
        look => folds as f64 * (fitted / look as f64).powf(GROWTH),
    }
}

/// Chooses who goes on, the best first: about half, more where time is plentiful, and nobody that would take most of
/// the time that is left. One always does.
pub(crate) fn survivors(looks: &[Look], growth: f64, left: f64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..looks.len()).collect();
    order.sort_by(|a, b| looks[*b].score.total_cmp(&looks[*a].score));
    let cost = |index: usize| looks[index].seconds * growth;
    let whole: f64 = order.iter().map(|index| cost(*index)).sum();
    let most = if whole < 0.6 * left { (looks.len() * 3).div_ceil(4) } else { looks.len().div_ceil(2) + 1 };
    let (mut chosen, mut spent) = (Vec::new(), 0.0);
    for index in order.iter().copied().take(most) {
        let is_affordable = spent + cost(index) <= left && cost(index) <= 0.7 * left;
        if is_affordable {
            spent += cost(index);
            chosen.push(index);
        }
    }
    if chosen.is_empty() {
        let cheapest = order.into_iter().min_by(|a, b| cost(*a).total_cmp(&cost(*b)));
        chosen.extend(cheapest);
    }
    chosen
}

/// The tuning of one candidate.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tuning {
    /// Its module.
    pub(crate) module: String,
    /// The untuned result's name.
    pub(crate) name: String,
    /// The best score so far.
    pub(crate) score: f64,
    /// What one set of parameters takes.
    pub(crate) cost: f64,
    spent: f64,
    tried: u64,
    stuck: u64,
}

impl Tuning {
    pub(crate) fn new(module: String, name: String, score: f64, cost: f64) -> Self {
        Self { module, name, score, cost: cost.max(0.05), spent: 0.0, tried: 0, stuck: 0 }
    }

    /// Takes in what a batch came to; `None` when it failed.
    #[expect(clippy::cast_precision_loss, reason = "a handful of trials")]
    pub(crate) fn learn(&mut self, trials: u64, seconds: f64, score: Option<f64>) {
        self.spent += seconds;
        self.tried += trials;
        self.cost = (seconds / trials.max(1) as f64).max(0.05);
        match score {
            Some(score) if score > self.score => {
                self.score = score;
                self.stuck = 0;
            }
            Some(_) => self.stuck += trials,
            None => self.stuck = PATIENCE,
        }
    }

    /// Tells whether more trials may pay: a candidate that is stuck is left alone, sooner where it has taken long.
    pub(crate) fn is_open(&self, is_long: bool) -> bool {
        self.stuck < if is_long { PATIENCE / 2 } else { PATIENCE }
    }
}

/// Chooses the candidate whose turn it is, and how many trials it gets: the one that has had least. `None` when nothing
/// is open, or not a single trial fits.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "small positive numbers"
)]
pub(crate) fn next_batch(tunings: &[Tuning], left: f64, is_long: bool) -> Option<(usize, u64)> {
    let open: Vec<usize> = (0..tunings.len())
        .filter(|index| tunings[*index].is_open(is_long) && tunings[*index].cost <= left)
        .collect();
    let next = open.iter().copied().min_by(|a, b| tunings[*a].spent.total_cmp(&tunings[*b].spent))?;
    let slice = (left / (2.0 * open.len() as f64)).min(20.0);
    let trials = (slice / tunings[next].cost).floor().clamp(1.0, MOST_TRIALS);
    Some((next, trials as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(scores: &[(f64, f64)]) -> Vec<Look> {
        scores
            .iter()
            .map(|(score, seconds)| Look { module: String::new(), score: *score, seconds: *seconds })
            .collect()
    }

    #[test]
    fn half_go_on_and_nobody_takes_all_the_time() {
        let six = looks(&[(0.1, 1.0), (0.9, 1.0), (0.5, 1.0), (0.7, 1.0), (0.2, 1.0), (0.3, 1.0)]);
        assert_eq!(survivors(&six, 4.0, 25.0), [1, 3, 2, 5]);
        assert_eq!(survivors(&six, 4.0, 1000.0), [1, 3, 2, 5, 4]);
        assert_eq!(survivors(&six, 4.0, 9.0), [1, 3]);
        let slow = looks(&[(0.9, 30.0), (0.8, 1.0)]);
        assert_eq!(survivors(&slow, 4.0, 25.0), [1]);
        assert_eq!(survivors(&slow, 4.0, 1.0), [1]);
        assert!(survivors(&[], 4.0, 1.0).is_empty());
    }

    #[test]
    fn a_look_at_few_rows_says_what_all_would_take() {
        assert_eq!((look_rows(900), growth(900, 5)), (0, 4.0));
        assert_eq!(look_rows(50_000), LOOK_ROWS);
        assert!((growth(37_500, 5) - 5.0 * 10_f64.powf(GROWTH)).abs() < 1e-9);
    }

    #[test]
    fn batches_take_turns_until_nothing_is_open() {
        let mut both = vec![
            Tuning::new("a".into(), "a".into(), 0.5, 1.0),
            Tuning::new("b".into(), "b".into(), 0.4, 0.5),
        ];
        assert_eq!(next_batch(&both, 20.0, false), Some((0, 5)));
        both[0].learn(5, 4.0, Some(0.6));
        assert_eq!(next_batch(&both, 16.0, false), Some((1, 8)));
        both[1].learn(8, 4.5, Some(0.4));
        assert_eq!((both[0].cost, both[0].score), (0.8, 0.6));
        both[1].learn(16, 6.0, Some(0.3));
        assert!(!both[1].is_open(false) && both[0].is_open(true));
        assert_eq!(next_batch(&both, 0.5, false), None);
        both[0].learn(1, 1.0, None);
        assert_eq!(next_batch(&both, 100.0, false), None);
    }
}
