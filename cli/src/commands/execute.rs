//! Runs a planned run to its end: shared by `eval`, `run resume` and `task check`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use mlgym::{ReadyTask, RunReport, Runner, Stage};
use mlgym_agents::Agents;
use mlgym_journal::run::RunLock;
use mlgym_journal::{Home, RunManifest, TaskName};
use mlgym_leaderboard::Leaderboard;
use mlgym_tasks::Task;
use tokio::sync::mpsc;

use crate::failure::{Failure, Kind};
use crate::output::hanging;
use crate::progress::Progress;
use crate::session::{Engine, Session};

/// How long what is stopped may take to clean up after itself.
const GRACE: Duration = Duration::from_secs(4);

/// Makes every task ready, one after the other.
pub(crate) async fn make_ready(
    stage: &Stage,
    tasks: &[Arc<Task>],
    progress: &Progress,
) -> Result<HashMap<TaskName, Arc<ReadyTask>>, Failure> {
    let mut ready = HashMap::new();
    for task in tasks {
        if stage.cancel.is_cancelled() {
            return Err(Failure::interrupted());
        }
        let spinner = progress.spinner(format!("preparing {}", task.name));
        let making = stage.ready(task.clone());
        tokio::pin!(making);
        let made = tokio::select! {
            made = &mut making => made,
            // What is being made is given time to clean up after itself.
            () = stage.cancel.cancelled() => match tokio::time::timeout(GRACE, &mut making).await {
                Ok(made) => made,
                Err(_) => return Err(Failure::interrupted()),
            },
        };
        spinner.finish_and_clear();
        ready.insert(task.name.clone(), Arc::new(made?));
    }
    Ok(ready)
}

/// Checks that the user accepts what the tasks ask for, before anything is prepared for them.
pub(crate) fn permitted(session: &Session, tasks: &[Arc<Task>]) -> Result<(), Failure> {
    let allowed = session.allowed();
    for task in tasks {
        for (what, word) in task.asks() {
            let is_allowed = match word {
                "network" => allowed.network,
                _ => allowed.gpus,
            };
            if !is_allowed {
                let name = &task.name;
                let text =
                    format!("{name} asks {what}: accept it with --allow {word}, or leave the task out");
                return Err(Failure::message(Kind::Usage, text));
            }
        }
    }
    Ok(())
}

/// Makes a run's tasks ready; when that fails, removes what it left and says how to go on.
pub(crate) async fn make_run_ready(
    session: &Session,
    home: &Home,
    engine: &Engine,
    manifest: &RunManifest,
    tasks: &[Arc<Task>],
    progress: &Progress,
) -> Result<HashMap<TaskName, Arc<ReadyTask>>, Failure> {
    let stage = session.stage(engine, home, &manifest.run);
    match make_ready(&stage, tasks, progress).await {
        Ok(ready) => Ok(ready),
        Err(failure) => {
            let removal = mlgym::reaper::remove_run(engine.backend.as_ref(), home, &manifest.run);
            // The next start tries again, if the engine does not answer now.
            let _ = tokio::time::timeout(GRACE, removal).await;
            let failure = if session.cancel.is_cancelled() { Failure::interrupted() } else { failure };
            Err(failure.hint(resume_hint(manifest)))
        }
    }
}

/// Runs what is missing of a run. With a leaderboard, episodes are stored as they end.
pub(crate) async fn execute(
    session: &Session,
    home: &Home,
    engine: &Engine,
    plan: (&RunManifest, &RunLock, &HashMap<TaskName, Arc<ReadyTask>>),
    progress: &Progress,
    leaderboard: Option<&Leaderboard>,
) -> Result<RunReport, Failure> {
    let (manifest, lock, ready) = plan;
    let (sender, mut events) = mpsc::unbounded_channel();
    let runner = Runner {
        home: home.clone(),
        backend: engine.backend.clone(),
        agents: Arc::new(Agents),
        watchers: Some(sender),
        allowed: session.allowed(),
        gpus: Session::gpus(ready.values().map(|ready| ready.task.as_ref())),
        cancel: session.cancel.clone(),
    };
    let watching = async {
        let mut stored = Ok(());
        while let Some(event) = events.recv().await {
            let Some(view) = progress.episode(&event) else { continue };
            if let (Some(record), Some(leaderboard), Ok(())) = (view.record(), leaderboard, &stored) {
                stored = leaderboard.store_as(&record, manifest.purpose).await;
            }
        }
        stored
    };
    let running = async {
        let report = runner.run(manifest, lock, ready).await;
        drop(runner);
        report
    };
    let (report, stored) = tokio::join!(running, watching);
    let report = report.map_err(|error| Failure::from(error).hint(resume_hint(manifest)))?;
    stored.map_err(|error| {
        Failure::from(error).hint("the journals are complete: `mlgym leaderboard rebuild`")
    })?;
    if let Some(leaderboard) = leaderboard {
        // An episode that was only graded again was not seen from its start.
        for record in &report.records {
            leaderboard.store_as(record, manifest.purpose).await?;
        }
    }
    Ok(report)
}

/// Says how to go on.
pub(crate) fn resume_hint(manifest: &RunManifest) -> String {
    format!("to finish what is missing: mlgym run resume {}", manifest.run)
}

/// Says by which exit code the run ends.
pub(crate) fn verdict(session: &Session, manifest: &RunManifest, report: &RunReport) -> Result<(), Failure> {
    use mlgym_journal::EpisodeStatus::{GradingError, SandboxError};
    if session.cancel.is_cancelled() && !report.unfinished.is_empty() {
        let text =
            format!("stopped with {} of {} episodes over", over(manifest, report), manifest.episodes.len());
        return Err(Failure::message(Kind::Interrupted, text).hint(resume_hint(manifest)));
    }
    let with = |status| report.records.iter().filter(move |record| record.status == status);
    if let Some(first) = with(SandboxError).next() {
        let count = with(SandboxError).count();
        let reason = first.reason.clone().unwrap_or_default();
        let text = format!(
            "the sandbox failed in {count} of {} episodes\n{}: {reason}",
            manifest.episodes.len(),
            first.started.episode
        );
        return Err(Failure::message(Kind::Environment, text).hint(resume_hint(manifest)));
    }
    let ungraded: Vec<_> = report.records.iter().filter(|record| record.normalised.is_none()).collect();
    if ungraded.is_empty() {
        return Ok(());
    }
    let mut text = format!("{} of {} episodes have no score", ungraded.len(), manifest.episodes.len());
    for record in &ungraded {
        let reason = record.reason.clone().unwrap_or_default();
        text.push_str(&format!(
            "\n  {}: {}: {}",
            record.started.episode,
            record.status.as_str(),
            hanging(&reason)
        ));
    }
    let failure = Failure::message(Kind::Bar, text);
    Err(if with(GradingError).next().is_some() { failure.hint(resume_hint(manifest)) } else { failure })
}

fn over(manifest: &RunManifest, report: &RunReport) -> usize {
    manifest.episodes.len() - report.unfinished.len()
}
