//! Sandboxes started ahead, for the episodes that are next in a run's queue.
//!
//! A sandbox is made for one episode and no other: it carries that episode's labels, and is removed with it. Nothing is
//! ever used twice.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mlgym_journal::EpisodeId;
use mlgym_sandbox::Sandbox;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::episode::Ground;

/// So many sandboxes wait for their episodes at most: episodes seldom end together, and each costs what a container does.
const AHEAD: usize = 2;

/// A sandbox on its way.
type Coming = oneshot::Receiver<Box<dyn Sandbox>>;

/// A sandbox that is being started ahead; whoever takes it first has it.
#[derive(Debug, Clone)]
pub struct WarmStart(Arc<Mutex<Option<Coming>>>);

impl WarmStart {
    /// Waits for the sandbox; `None` when it was taken, or could not be made.
    pub(crate) async fn take(&self) -> Option<Box<dyn Sandbox>> {
        let receiver = self.0.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        receiver.await.ok()
    }
}

/// The episodes of a run that have not begun, and what was started for them.
#[derive(Debug)]
pub(crate) struct WarmQueue {
    queue: Mutex<Queue>,
    /// Fires when the run is to stop: a sandbox that is being filled for an episode is not waited for then.
    cancel: CancellationToken,
}

#[derive(Debug)]
struct Queue {
    waiting: VecDeque<Ground>,
    started: HashMap<EpisodeId, WarmStart>,
    /// Dropped with the queue: what is still being made then is left to the sweep.
    starting: JoinSet<()>,
}

impl WarmQueue {
    /// Takes the episodes in the order in which they will begin, and the token of their run.
    pub(crate) fn new(cancel: CancellationToken, episodes: impl IntoIterator<Item = Ground>) -> Self {
        let queue = Queue {
            waiting: episodes.into_iter().collect(),
            started: HashMap::new(),
            starting: JoinSet::new(),
        };
        Self { queue: Mutex::new(queue), cancel }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that an episode begins, and returns what was started for it.
    pub(crate) fn begin(&self, episode: &EpisodeId) -> Option<WarmStart> {
        let mut queue = self.queue();
        queue.waiting.retain(|ground| ground.plan.episode != *episode);
        queue.started.remove(episode)
    }

    /// Starts a sandbox for the next episode in the queue, if there is one and not enough are there already.
    pub(crate) fn start_next(&self) {
        let mut queue = self.queue();
        if queue.started.len() >= AHEAD {
            return;
        }
        let Some(ground) = queue.waiting.pop_front() else { return };
        // Graphics processors are not held for who is not there yet.
        if ground.ready.task.gpus > 0 {
            return;
        }
        let cancel = self.cancel.clone();
        let (sender, receiver) = oneshot::channel();
        let warm = WarmStart(Arc::new(Mutex::new(Some(receiver))));
        queue.started.insert(ground.plan.episode.clone(), warm);
        queue.starting.spawn(async move {
            // What fails here fails again, and is told, when the episode begins.
            if let Ok(sandbox) = ground.create_sandbox(None, &cancel).await {
                // Where nobody waits any more the sandbox is dropped, and swept.
                let _ = sender.send(sandbox);
            }
        });
    }
}

#[cfg(test)]
mod tests;
