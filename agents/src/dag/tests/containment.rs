//! Failures stay where they happen.

use super::crew::{Job, composite, graph_of, leaf, run};
use crate::dag::{Ending, Expansion, NodeSpec, Policy};

#[tokio::test(start_paused = true)]
async fn a_composite_is_divided_only_when_its_turn_has_come() {
    let plan = Expansion::new(vec![leaf("x", 1), leaf("y", 1).needs(["x"])], "y");
    let graph = graph_of(Policy::propagate(), vec![leaf("a", 5), composite("b", plan).needs(["a"])]);
    let (outcome, log, _) = run(&graph, 4).await;
    assert_eq!(outcome.ending, Ending::Completed);
    assert_eq!(outcome.output("b"), outcome.output("b/y"));
    let expected = [
        "started a",
        "finished a",
        "started b",
        "expanded b",
        "started b/x",
        "finished b/x",
        "started b/y",
        "finished b/y",
        "yielded b y",
    ];
    assert_eq!(log.story(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_retried_then_planned_anew_and_nothing_else_runs_again() {
    let other = Expansion::new(vec![leaf("by hand", 1)], "by hand");
    let train = Job { ms: 1, failing: 9, others: vec![other], ..Job::default() };
    let train =
        NodeSpec::leaf("train", train).needs(["data"]).on_failure(Policy::propagate().retry(1).substitute(1));
    let plan = Expansion::new(vec![leaf("data", 1), train, leaf("test", 1).needs(["train"])], "test");
    let graph = graph_of(Policy::propagate(), vec![composite("solve", plan)]);
    let (outcome, _, crew) = run(&graph, 2).await;
    assert_eq!(outcome.ending, Ending::Completed);
    let expected = ["solve/data", "solve/train", "solve/train", "solve/train/by hand", "solve/test"];
    assert_eq!(crew.starts(), expected);
    let told = crew.memory(|memory| memory.told["solve/train"].clone());
    assert_eq!(
        told,
        "what failed: solve/train broke at attempt 2\nbefore that: solve/train broke at attempt 1\n"
    );
}
