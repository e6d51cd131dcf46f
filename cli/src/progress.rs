//! Progress on stderr: a fold over the run's events, shown only where a person watches.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use mlgym::RunEvent;
use mlgym_journal::{EpisodeId, EpisodeView};
use mlgym_sandbox::image::ImageProgress;

use crate::output::{say, seconds};

/// Shows what is going on. Clones show on the same lines.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    bars: MultiProgress,
    is_shown: bool,
    image: Arc<Mutex<Option<ProgressBar>>>,
    episodes: Arc<Mutex<HashMap<EpisodeId, (EpisodeView, ProgressBar)>>>,
}

impl Progress {
    /// Shows lines when both stdout and stderr are terminals; else only what a log should keep.
    pub(crate) fn new() -> Self {
        let is_shown = std::io::stdout().is_terminal() && std::io::stderr().is_terminal();
        let target =
            if is_shown { ProgressDrawTarget::stderr_with_hz(8) } else { ProgressDrawTarget::hidden() };
        Self {
            bars: MultiProgress::with_draw_target(target),
            is_shown,
            image: Arc::default(),
            episodes: Arc::default(),
        }
    }

    /// Writes a line above the moving ones.
    pub(crate) fn line(&self, text: impl AsRef<str>) {
        if self.is_shown {
            // A terminal that went away must not stop the work.
            let _ = self.bars.println(text);
        } else {
            say(text);
        }
    }

    /// Shows a moving line until it is finished with.
    pub(crate) fn spinner(&self, text: String) -> ProgressBar {
        let style = ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}");
        let bar = self.bars.add(ProgressBar::new_spinner());
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        bar.enable_steady_tick(Duration::from_millis(150));
        bar.set_message(text);
        bar
    }

    /// Shows how an image comes about.
    pub(crate) fn image(&self, event: &ImageProgress) {
        let mut current = self.image.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            ImageProgress::Started { image, work } => {
                if !self.is_shown {
                    say(format!("image {image}: {work} …"));
                }
                let style =
                    ProgressStyle::with_template("{spinner} {prefix} [{bar:20}] {wide_msg} {elapsed}");
                let bar = self.bars.add(ProgressBar::new(1));
                bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("━╸ "));
                bar.set_prefix(format!("image {image}: {work}"));
                bar.enable_steady_tick(Duration::from_millis(150));
                if let Some(before) = current.replace(bar) {
                    before.finish_and_clear();
                }
            }
            ImageProgress::Step { step, steps, .. } => {
                if let Some(bar) = current.as_ref() {
                    bar.set_length(*steps);
                    bar.set_position(step.saturating_sub(1));
                }
            }
            ImageProgress::Line { line, .. } => {
                if let Some(bar) = current.as_ref() {
                    bar.set_message(line.trim().to_owned());
                }
            }
            ImageProgress::Notice { image, text } => self.line(format!("image {image}: {text}")),
            ImageProgress::Finished { image, took } => {
                if let Some(bar) = current.take() {
                    bar.finish_and_clear();
                }
                self.line(format!("image {image}: ready in {}", seconds(took.as_secs_f64())));
            }
        }
    }

    /// Shows an episode's event and returns its view when it is over.
    pub(crate) fn episode(&self, event: &RunEvent) -> Option<EpisodeView> {
        let mut episodes = self.episodes.lock().unwrap_or_else(PoisonError::into_inner);
        let (view, bar) = episodes.entry(event.episode.clone()).or_insert_with(|| {
            let bar = self.bars.add(ProgressBar::new_spinner());
            let style = ProgressStyle::with_template("{spinner} {wide_msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar.enable_steady_tick(Duration::from_millis(250));
            (EpisodeView::default(), bar)
        });
        view.apply(&event.envelope);
        if view.end.is_none() {
            bar.set_message(running(&event.episode, view));
            return None;
        }
        bar.finish_and_clear();
        let (view, _) = episodes.remove(&event.episode)?;
        if self.is_shown {
            self.line(over(&event.episode, &view));
        }
        Some(view)
    }
}

/// One line about a running episode: task, step, phase, best score, time left.
fn running(episode: &EpisodeId, view: &EpisodeView) -> String {
    let name = view.started.as_ref().map_or_else(
        || episode.to_string(),
        |started| format!("{} {} s{}", started.agent, started.task.short(), started.seed),
    );
    let phase = view.phase.as_deref().or(view.action).unwrap_or("start");
    let best = view.best_validated.map(|best| format!("  best {best:.3}")).unwrap_or_default();
    let left = view.remaining.wall_s.map(|left| format!("  {} left", seconds(left))).unwrap_or_default();
    format!("{name:<34} step {:<3} {phase:<14}{best}{left}", view.steps)
}

fn over(episode: &EpisodeId, view: &EpisodeView) -> String {
    let name = view.started.as_ref().map_or_else(
        || episode.to_string(),
        |started| format!("{} {} s{}", started.agent, started.task.short(), started.seed),
    );
    let (status, time) = view.end.as_ref().map_or(("", 0.0), |end| (end.status.as_str(), end.usage.wall_s));
    let metric = view.started.as_ref().map(|started| started.metric.name.as_str()).unwrap_or_default();
    match (view.raw, view.normalised) {
        (Some(raw), Some(normalised)) => {
            format!("{name:<34} {metric} {raw:.4}  normalised {normalised:.3}  {}", seconds(time))
        }
        _ => {
            let reason = view.end.as_ref().and_then(|end| end.reason.as_deref()).unwrap_or_default();
            format!("{name:<34} {status}: {}", reason.lines().next().unwrap_or_default())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mlgym_journal::Remaining;

    #[test]
    fn a_running_episode_is_one_line() {
        let view = EpisodeView {
            steps: 12,
            phase: Some("train 3/7".to_owned()),
            best_validated: Some(0.91),
            remaining: Remaining { wall_s: Some(512.3), ..Remaining::default() },
            ..EpisodeView::default()
        };
        let line = running(&EpisodeId::new("automl.mlgym-digits.s0").unwrap(), &view);
        insta::assert_snapshot!(line, @"automl.mlgym-digits.s0             step 12  train 3/7       best 0.910  8 min 32 s left");
    }
}
