//! Recorded episodes, replayed without a model and without a network: the same answers lead to the same score.
//!
//! `fixtures/recordings/<name>/` holds a recording and `fixture.json`: which task, agent and options, the score that the
//! recorded run had, and how the answers came about.
#![expect(clippy::unwrap_used, reason = "what a test needs and does not get must fail it")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::future::join_all;
use mlgym::{Action, AgentFactory, ReadyTask};
use mlgym_agents::Agents;
use mlgym_agents::models::recorded_model;
use mlgym_journal::{AgentName, BranchId, EpisodeId, EpisodeStatus, Event, RunManifest};
use mlgym_tests::Lab;
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// What a recorded run was.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fixture {
    suite: String,
    task: String,
    agent: String,
    seed: u64,
    wall_s: f64,
    #[serde(default)]
    options: serde_json::Map<String, serde_json::Value>,
    /// The raw score that the recorded run had.
    raw: f64,
    /// How the answers came about.
    made: String,
}

fn fixtures() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/recordings");
    let mut found: Vec<PathBuf> =
        std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

fn planned(lab: &Lab, ready: &ReadyTask, fixture: &Fixture, recording: &Path) -> RunManifest {
    let mut plan = lab.plan(&ready.task);
    let episode = &mut plan.episodes[0];
    episode.agent = AgentName::new(fixture.agent.clone()).unwrap();
    episode.seed = fixture.seed;
    episode.episode = EpisodeId::of(&episode.agent, &episode.task, episode.seed).unwrap();
    // More than the recorded run had would change how the time is shared out.
    episode.budgets.wall_s = Some(fixture.wall_s);
    episode.model = recorded_model(recording).unwrap();
    episode.options = fixture.options.clone();
    episode.options.insert("replay".to_owned(), serde_json::json!(recording));
    plan
}

/// What a replay did and came to.
#[derive(Debug)]
struct Replayed {
    /// Every action of every branch, in the order of each.
    actions: BTreeMap<BranchId, Vec<Action>>,
    raw: f64,
}

async fn replayed(directory: &Path, fixture: &Fixture) -> Replayed {
    let lab = Lab::new().await;
    let ready = lab.built_in(&fixture.suite, &fixture.task).await;
    let plan = planned(&lab, &ready, fixture, &directory.join("recording"));
    let agents: Arc<dyn AgentFactory> = Arc::new(Agents::default());
    let report = lab.run(&plan, ready, agents, CancellationToken::new()).await.unwrap();
    let record = &report.records[0];
    let name = directory.display();
    assert_eq!(record.status, EpisodeStatus::Graded, "{name}: {:?}", record.reason);
    let (mut actions, mut calls) = (BTreeMap::<_, Vec<_>>::new(), 0);
    for line in lab.journal(&plan) {
        match line.event {
            Event::ModelCall(_) => calls += 1,
            Event::Action { action, .. } => actions.entry(line.branch).or_default().push(action),
            _ => {}
        }
    }
    assert!(calls > 1, "{name}: the recording answered");
    Replayed { actions, raw: record.raw.unwrap() }
}

/// Replays a fixture twice, and says what is wrong; nothing where all is as it was recorded.
async fn mismatch(directory: &Path, slots: &Semaphore) -> Option<String> {
    let name = directory.display();
    let fixture: Fixture =
        serde_json::from_str(&std::fs::read_to_string(directory.join("fixture.json")).unwrap()).unwrap();
    assert!(!fixture.made.is_empty());
    let replay = || async {
        let _slot = slots.acquire().await.unwrap();
        replayed(directory, &fixture).await
    };
    let (first, second) = tokio::join!(replay(), replay());
    // On one machine nothing differs.
    if first.raw != second.raw {
        return Some(format!("{name}: {} in one replay, {} in another", first.raw, second.raw));
    }
    if first.actions != second.actions {
        return Some(format!("{name}: two replays act differently"));
    }
    // Another kind of processor than the recording's rounds otherwise, and models pass that on.
    let is_off = (first.raw - fixture.raw).abs() > 1e-4 * fixture.raw.abs().max(1.0);
    is_off.then(|| format!("{name}: {}, not {}", first.raw, fixture.raw))
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_runs_are_repeated_to_the_same_actions_and_the_same_score() {
    let all = fixtures();
    assert!(all.len() >= 3, "{all:?}");
    // They train on one core each, and their safety nets are deadlines: no more at once than there are cores.
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let slots = Semaphore::new(cores.min(2));
    let outcomes = join_all(all.iter().map(|directory| mismatch(directory, &slots))).await;
    let mismatches: Vec<_> = outcomes.into_iter().flatten().collect();
    assert!(mismatches.is_empty(), "{}", mismatches.join("\n"));
}
