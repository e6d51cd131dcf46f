//! The decomposition coder with candidates written beforehand: what a model would answer is planted, all else is real.
#![expect(clippy::unwrap_used, reason = "what a test needs and does not get must fail it")]

use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;
use mlgym_agents::coder::{self, CoderError, Graph, Limits, Options, Site, Solved, Workshop};
use mlgym_agents::coder::{select::Method, stub, trace};
use mlgym_agents::models::{Completion, Model, ModelError, Request, scripted};
use mlgym_journal::RunId;
use mlgym_tests::Lab;
use tokio_util::sync::CancellationToken;

/// Answers by what is asked for and by the function: each draw has its answers, one for each attempt at it.
#[derive(Debug, Default)]
struct Planted {
    answers: BTreeMap<(&'static str, &'static str), Vec<Vec<String>>>,
    asked: Mutex<Vec<Request>>,
}

impl Planted {
    /// Plants one answer for each draw.
    fn with(self, role: &'static str, function: &'static str, draws: &[&str]) -> Self {
        let draws: Vec<Vec<&str>> = draws.iter().map(|draw| vec![*draw]).collect();
        self.with_attempts(role, function, &draws)
    }

    /// Plants several answers for each draw.
    fn with_attempts(mut self, role: &'static str, function: &'static str, draws: &[Vec<&str>]) -> Self {
        let fenced = |text: &&str| match *text {
            prose if prose.starts_with("prose:") => prose["prose:".len()..].to_owned(),
            code => format!("```python\n{code}\n```\n"),
        };
        let draws = draws.iter().map(|attempts| attempts.iter().map(fenced).collect());
        self.answers.entry((role, function)).or_default().extend(draws);
        self
    }
}

#[async_trait]
impl Model for Planted {
    fn name(&self) -> &str {
        "planted"
    }

    async fn complete(&self, request: &Request) -> Result<Completion, ModelError> {
        self.asked.lock().unwrap().push(request.clone());
        let text = serde_json::to_string(&request.messages[1]).unwrap();
        let found = self.answers.iter().find(|((role, function), _)| {
            let prompt = text.split("```python").nth(1).unwrap_or_default();
            request.role == format!("coder {role}") && prompt.starts_with(&format!("\\ndef {function}("))
        });
        let attempt = (request.messages.len() - 2) / 2;
        let answer = found.and_then(|(_, draws)| draws.get(request.draw as usize)?.get(attempt));
        // A model that has nothing more to say answers in prose.
        Ok(scripted::text(answer.map_or("I have nothing to say to this.", String::as_str)))
    }
}

/// Writes a program in a sandbox of its own, and checks that the trace computes every score again.
async fn solved(problem: Graph, model: &Planted, options: Options) -> Result<Solved, CoderError> {
    let lab = Lab::new().await;
    let site = Site {
        home: lab.home.clone(),
        run: RunId::new("coder").unwrap(),
        backend: lab.backend.clone(),
        image: lab.base.clone(),
        watchers: None,
        cancel: CancellationToken::new(),
    };
    let mut workshop = Workshop::open(site, 0).await.unwrap();
    let outcome = coder::solve(problem, model, workshop.environment(), options).await;
    workshop.close().await.unwrap();
    assert_eq!(lab.containers().await, 0, "sandboxes were left");
    let trace = match &outcome {
        Ok(solved) => &solved.trace,
        Err(error) => &error.trace,
    };
    let stored: trace::Trace = serde_json::from_str(&serde_json::to_string(trace).unwrap()).unwrap();
    assert_eq!(stored, *trace);
    for recomputed in coder::recompute(&stored) {
        assert_eq!(recomputed.stored, recomputed.computed, "{:?}", recomputed.functions);
        assert!(recomputed.same);
    }
    outcome
}

/// The options of a test: as many candidates as are planted, and no more.
fn options(candidates: usize) -> Options {
    let limits = Limits { deadline: 0.5, ..Limits::default() };
    Options { candidates, most_candidates: candidates, limits, ..Options::default() }
}

const TOTAL: &str = r#"
def total_of_squares(text: str) -> int:
    """The sum of the squares of the integers in a text of integers with commas between them. 0 for an empty text."""
"#;

/// Seven right of eleven, three wrong in ways of their own and one that crashes, at each of three levels.
fn three_levels() -> Planted {
    let right = |name: &str, body: &str| format!("def {name}:\n    return {body}");
    let with_stub = |code: &str, stub: &str| format!("{code}\n\n\n{stub}\n    ...");
    let total = right("total_of_squares(text: str) -> int", "sum(squares_in(text))");
    let squares =
        right("squares_in(text: str) -> list[int]", "[number * number for number in integers_in(text)]");
    let stub_squares = "def squares_in(text: str) -> list[int]:\n    \"\"\"The squares of the integers in a text with commas.\"\"\"";
    let stub_integers = "def integers_in(text: str) -> list[int]:\n    \"\"\"The integers of a text with commas, in order.\"\"\"";
    let integers =
        right("integers_in(text: str) -> list[int]", "[int(part) for part in text.split(',') if part]");
    let draws = |right: &str, wrong: [&str; 3], crash: &str| -> Vec<String> {
        let mut draws: Vec<String> = (0..6).map(|number| format!("{right}  # {number}")).collect();
        draws.extend(wrong.iter().map(|wrong| (*wrong).to_owned()));
        draws.push(crash.to_owned());
        draws
    };
    let plant = |model: Planted, name: &'static str, draws: &[String]| {
        model.with("conquer", name, &draws.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let model = Planted::default()
        .with("divide", "total_of_squares", &[&with_stub(&total, stub_squares)])
        .with("divide", "squares_in", &[&with_stub(&squares, stub_integers)])
        .with("divide", "integers_in", &[&integers])
        .with(
            "inputs",
            "total_of_squares",
            &["total_of_squares('1,2')\ntotal_of_squares('')\ntotal_of_squares('-3,4')"],
        )
        .with("inputs", "squares_in", &["squares_in('1,2')\nsquares_in('')\nsquares_in('-3')"])
        .with("inputs", "integers_in", &["integers_in('1,2')\nintegers_in('')\nintegers_in('-3,0')"]);
    let model = plant(
        model,
        "total_of_squares",
        &draws(
            &total,
            [
                "def total_of_squares(text):\n    return len(squares_in(text))",
                "def total_of_squares(text):\n    return max(squares_in(text), default=-1)",
                "def total_of_squares(text):\n    return sum(squares_in(text)) + 1",
            ],
            "def total_of_squares(text):\n    return 1 / 0",
        ),
    );
    let model = plant(
        model,
        "squares_in",
        &draws(
            &squares,
            [
                "def squares_in(text):\n    return [2 * number for number in integers_in(text)]",
                "def squares_in(text):\n    return integers_in(text)[::-1] + [7]",
                "def squares_in(text):\n    return [number ** 3 - 1 for number in integers_in(text)] + [0]",
            ],
            "def squares_in(text):\n    raise ValueError(text)",
        ),
    );
    plant(
        model,
        "integers_in",
        &draws(
            &integers,
            [
                "def integers_in(text):\n    return [len(text)]",
                "def integers_in(text):\n    return list(text)",
                "def integers_in(text):\n    return [abs(int(part)) + 1 for part in text.split(',') if part] + [5]",
            ],
            "def integers_in(text):\n    import os\n    os._exit(3)",
        ),
    )
}

#[tokio::test]
async fn a_stub_becomes_a_chain_of_calls_and_consensus_finds_the_right_at_each_of_three_levels() {
    let model = three_levels();
    let solved = solved(stub::parse(TOTAL).unwrap(), &model, options(10)).await.unwrap();
    assert_eq!(solved.trace.graph.functions().len(), 3);
    for component in &solved.trace.components {
        let decision = component.decision.as_ref().unwrap();
        assert_eq!(decision.method, Some(Method::Consensus), "{:?}", component.functions);
        assert_eq!(decision.programs.iter().map(|program| program.votes).sum::<u64>(), 11);
        assert_eq!(decision.chosen().unwrap().votes, 7);
    }
    let order: Vec<&String> =
        solved.trace.components.iter().map(|component| &component.functions[0]).collect();
    assert_eq!(order, ["integers_in", "squares_in", "total_of_squares"]);
    assert_eq!(solved.program, include_str!("coder/total_of_squares.py"));
}
