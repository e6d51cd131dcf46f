//! Transactions: all changes or none.

use super::crew::{Job, graph_of, leaf};
use super::random::{Dice, Shape};
use crate::dag::{GraphError, Policy};

const SHAPE: Shape = Shape { siblings: 8, levels: 2, longest: 9, failing: 0 };

#[test]
fn a_transaction_that_would_make_a_cycle_leaves_the_graph_as_it_was() {
    let mut graph = Dice::new(1).graph(SHAPE);
    graph
        .edit(|edits| {
            edits.add(leaf("a", 1)).add(leaf("b", 1).needs(["a"]));
        })
        .unwrap();
    let before = graph.clone();
    let error = graph.edit(|edits| {
        edits.add(leaf("c", 1).needs(["b"])).connect("a", "c");
    });
    let cycle = ["a", "c", "b", "a"].map(str::to_owned).to_vec();
    assert_eq!(error, Err(GraphError::Cycle(cycle)));
    assert!(graph == before);
    let same = graph_of(Policy::propagate(), vec![leaf("x", 1)]);
    assert_eq!(same.get("x").unwrap().payload(), &Job::of(1));
}
