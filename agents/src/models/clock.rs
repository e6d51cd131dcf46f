//! Clocks that a replay can repeat: an agent decides by the time it sees, so its readings belong to a recording.
//!
//! The readings of an episode are in `clock/<episode>.json`, one number of milliseconds a line, in the order in which
//! they were made. Agents read their clock in an order that their seed and observations decide.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mlgym::Clock;
use mlgym_journal::EpisodeId;

use super::api::ModelError;

/// Where readings are kept in a recording.
pub(super) const DIRECTORY: &str = "clock";

fn readings_of(recording: &Path, episode: &EpisodeId) -> PathBuf {
    recording.join(DIRECTORY).join(format!("{episode}.json"))
}

fn failed(verb: &'static str, path: &Path, reason: &dyn std::fmt::Display) -> ModelError {
    ModelError::Recording { verb, recording: path.display().to_string(), reason: reason.to_string() }
}

/// Writes down what another clock shows. What an agent sees is what is written: whole milliseconds.
#[derive(Debug)]
pub struct RecordedClock {
    clock: Arc<dyn Clock>,
    path: PathBuf,
    file: Mutex<Writing>,
}

#[derive(Debug)]
struct Writing {
    file: File,
    failure: Option<std::io::Error>,
}

impl RecordedClock {
    /// Begins the readings of an episode; those of an earlier attempt at it are replaced.
    pub fn start(clock: Arc<dyn Clock>, recording: &Path, episode: &EpisodeId) -> Result<Self, ModelError> {
        let path = readings_of(recording, episode);
        let made = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| File::create(&path));
        let file = made.map_err(|error| failed("write", &path, &error))?;
        Ok(Self { clock, path, file: Mutex::new(Writing { file, failure: None }) })
    }

    /// Says whether a reading could not be written, which makes the recording useless.
    pub fn check(&self) -> Result<(), ModelError> {
        let writing = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        writing.failure.as_ref().map_or(Ok(()), |error| Err(failed("write", &self.path, error)))
    }
}

impl Clock for RecordedClock {
    fn elapsed(&self) -> Duration {
        let mut writing = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // Read while nobody else can, so that the lines have the order of the readings.
        let milliseconds = u64::try_from(self.clock.elapsed().as_millis()).unwrap_or(u64::MAX);
        // Written at once: a process that is killed loses none.
        if let Err(error) = writing.file.write_all(format!("{milliseconds}\n").as_bytes()) {
            writing.failure.get_or_insert(error);
        }
        Duration::from_millis(milliseconds)
    }
}

/// Shows what was written down, then goes on from there as time really passes.
#[derive(Debug)]
pub struct ReplayedClock {
    clock: Arc<dyn Clock>,
    readings: Vec<Duration>,
    state: Mutex<Reading>,
}

#[derive(Debug, Default)]
struct Reading {
    next: usize,
    /// What the other clock showed when the readings had run out.
    since: Option<Duration>,
}

impl ReplayedClock {
    /// Reads an episode's readings. `clock` is what it goes on with.
    pub fn open(clock: Arc<dyn Clock>, recording: &Path, episode: &EpisodeId) -> Result<Self, ModelError> {
        let path = readings_of(recording, episode);
        let text = fs::read_to_string(&path).map_err(|error| failed("read", &path, &error))?;
        // A process that was killed may have left half a line.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let reading = |line: &str| {
            line.parse().map(Duration::from_millis).map_err(|error| failed("read", &path, &error))
        };
        let readings = whole.lines().map(reading).collect::<Result<_, _>>()?;
        Ok(Self { clock, readings, state: Mutex::default() })
    }
}

impl Clock for ReplayedClock {
    fn elapsed(&self) -> Duration {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reading) = self.readings.get(state.next) {
            state.next += 1;
            return *reading;
        }
        let now = self.clock.elapsed();
        let since = *state.since.get_or_insert_with(|| {
            tracing::warn!(
                readings = self.readings.len(),
                "the recorded time has run out: going on with the real one"
            );
            now
        });
        self.readings.last().copied().unwrap_or_default() + now.saturating_sub(since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows what it is told.
    #[derive(Debug, Default)]
    struct Set(Mutex<Duration>);

    impl Clock for Set {
        fn elapsed(&self) -> Duration {
            *self.0.lock().unwrap()
        }
    }

    #[test]
    fn readings_are_repeated_and_then_time_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let episode = EpisodeId::new("e").unwrap();
        let set = Arc::new(Set::default());
        let at = |micros: u64| *set.0.lock().unwrap() = Duration::from_micros(micros);
        let recorded = RecordedClock::start(set.clone(), directory.path(), &episode).unwrap();
        let mut seen = Vec::new();
        for micros in [0, 1_999, 70_000_000] {
            at(micros);
            seen.push(recorded.elapsed());
        }
        recorded.check().unwrap();
        // As after a kill in the middle of a line.
        std::fs::OpenOptions::new()
            .append(true)
            .open(readings_of(directory.path(), &episode))
            .and_then(|mut file| file.write_all(b"700"))
            .unwrap();
        let replayed = ReplayedClock::open(set.clone(), directory.path(), &episode).unwrap();
        assert_eq!([replayed.elapsed(), replayed.elapsed(), replayed.elapsed()], seen[..]);
        at(5_000_000);
        assert_eq!(replayed.elapsed(), Duration::from_secs(70));
        at(6_000_000);
        assert_eq!(replayed.elapsed(), Duration::from_secs(71));
    }

    #[test]
    fn an_episode_without_readings_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let error =
            ReplayedClock::open(Arc::new(Set::default()), directory.path(), &EpisodeId::new("e").unwrap());
        assert!(error.unwrap_err().to_string().contains("clock/e.json"));
    }
}
