//! The Python that runs in the sandbox: fixed modules, and training scripts generated from candidates.

use std::time::Duration;

use minijinja::value::Serde;
use minijinja::{Environment, Value, context};

use crate::automl::knowledge::Candidate;

/// Where the engine works in the sandbox.
pub(crate) const WORK: &str = "/workspace/automl";

/// What all scripts share.
pub(crate) const COMMON: &str = include_str!("python/automl_common.py");

/// The fixed modules, by file name.
pub(crate) const FILES: [(&str, &str); 5] = [
    ("automl_common.py", COMMON),
    ("profile.py", include_str!("python/profile.py")),
    ("ensemble.py", include_str!("python/ensemble.py")),
    ("zygote.py", include_str!("python/zygote.py")),
    ("verify.py", include_str!("python/verify.py")),
];

const TEMPLATE: &str = include_str!("templates/candidate.py.j2");

/// Returns the command that runs a script with the libraries loaded already.
pub(crate) fn command(script: &str, arguments: &str) -> String {
    format!("python -I -S {WORK}/zygote.py {WORK}/{script} {arguments}")
}

/// Writes the script that cross-validates a candidate, giving up when that would take longer than `deadline`.
pub(crate) fn training(candidate: &Candidate, seed: u64, deadline: Duration) -> String {
    render(
        &context! { candidate => Value::from(Serde(candidate)), output => candidate.name.as_str(), seed, deadline => deadline.as_secs() },
    )
}

/// Writes the script that tunes a candidate for so long.
pub(crate) fn tuning(candidate: &Candidate, seed: u64, time: Duration) -> String {
    let output = format!("{}-tuned", candidate.name);
    render(
        &context! { candidate => Value::from(Serde(candidate)), output, seed, tune_seconds => time.as_secs() },
    )
}

fn render(values: &minijinja::Value) -> String {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    // The template is ours and fixed; a test renders it for every candidate.
    environment.render_str(TEMPLATE, values).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::automl::knowledge::Knowledge;

    #[test]
    fn every_candidate_becomes_a_script_with_its_model() {
        for candidate in Knowledge::all().iter().flat_map(|knowledge| &knowledge.candidates) {
            let script = training(candidate, 7, Duration::from_secs(9));
            assert!(script.contains(&format!("    return {}\n", candidate.model)), "{script}");
            assert!(
                script.ends_with(&format!("train(\"{}\", make, SEED, deadline=9)\n", candidate.name)),
                "{script}"
            );
            assert!(candidate.space.iter().all(|parameter| candidate.model.contains(&parameter.name)));
        }
    }

    #[test]
    fn a_tuning_script_reads_like_one_written_by_hand() {
        let knowledge = Knowledge::for_kind("tabular", "regression").unwrap();
        insta::assert_snapshot!(tuning(&knowledge.candidates[0], 3, Duration::from_secs(12)));
    }
}
