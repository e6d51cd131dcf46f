//! The knowledge base: which pipelines suit which data, as TOML files beside this module.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

const FILES: [(&str, &str, &str); 4] = [
    ("tabular", "classification", include_str!("knowledge/tabular-classification.toml")),
    ("tabular", "regression", include_str!("knowledge/tabular-regression.toml")),
    ("image", "classification", include_str!("knowledge/image-classification.toml")),
    ("forecast", "regression", include_str!("knowledge/forecast.toml")),
];

/// What the profiling script found out about the data.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Profile {
    /// Numbers by name: rows, columns, classes.
    #[serde(flatten)]
    facts: BTreeMap<String, serde_json::Value>,
}

impl Profile {
    fn number(&self, fact: &str) -> Option<f64> {
        self.facts.get(fact)?.as_f64()
    }
}

/// The candidates for one kind of data.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Knowledge {
    /// In the order they are tried.
    #[serde(rename = "candidate")]
    pub(crate) candidates: Vec<Candidate>,
}

/// One pipeline.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Candidate {
    /// Its name, which is also its script's and its result's.
    pub(crate) name: String,
    /// Why it is worth a try.
    pub(crate) why: String,
    /// Python import lines.
    #[serde(default)]
    pub(crate) imports: Vec<String>,
    /// A Python expression that makes the model from the parameters of `space`.
    pub(crate) model: String,
    /// What tuning may change.
    #[serde(default)]
    pub(crate) space: Vec<Parameter>,
    /// Inclusive bounds on the profile's facts; all must hold.
    #[serde(default)]
    pub(crate) when: BTreeMap<String, (f64, f64)>,
}

/// A parameter that tuning may change.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameter {
    /// Its name in the model's expression.
    pub(crate) name: String,
    /// `float`, `log`, `int` or `choice`.
    pub(crate) kind: String,
    /// The Python literal used before tuning.
    pub(crate) default: String,
    /// Python literals: the two bounds, or the choices.
    pub(crate) range: Vec<String>,
}

impl Knowledge {
    /// Returns what is known about a kind of data; `None` when there is no pipeline for it.
    pub(crate) fn for_kind(kind: &str, task: &str) -> Option<Self> {
        let (_, _, text) = FILES.iter().find(|(k, t, _)| *k == kind && *t == task)?;
        // A test reads every file.
        toml::from_str(text).ok()
    }

    /// Returns the candidates that suit the data.
    pub(crate) fn suitable(&self, profile: &Profile) -> Vec<&Candidate> {
        let holds = |(fact, (low, high)): (&String, &(f64, f64))| {
            profile.number(fact).is_some_and(|value| (*low..=*high).contains(&value))
        };
        self.candidates.iter().filter(|candidate| candidate.when.iter().all(holds)).collect()
    }

    #[cfg(test)]
    pub(crate) fn all() -> Vec<Self> {
        FILES.iter().map(|(kind, task, _)| Self::for_kind(kind, task).unwrap()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(kind: &str, task: &str, facts: serde_json::Value) -> Vec<String> {
        let knowledge = Knowledge::for_kind(kind, task).unwrap();
        let profile: Profile = serde_json::from_value(facts).unwrap();
        knowledge.suitable(&profile).iter().map(|candidate| candidate.name.clone()).collect()
    }

    #[test]
    fn candidates_follow_the_data() {
        let small = serde_json::json!({ "rows": 300, "classes": 2, "smallest_class": 100 });
        let found = names("tabular", "classification", small);
        assert!(found.contains(&"svm-gauss".to_owned()) && !found.contains(&"boosting-hist".to_owned()));
        let large = serde_json::json!({ "rows": 500_000, "classes": 2, "smallest_class": 1000 });
        let found = names("tabular", "classification", large);
        assert_eq!(found, ["boosting-hist", "lightgbm"]);
    }

    #[test]
    fn every_file_is_read_and_names_are_unique() {
        for knowledge in Knowledge::all() {
            let mut names: Vec<_> = knowledge.candidates.iter().map(|candidate| &candidate.name).collect();
            names.sort();
            names.dedup();
            assert_eq!(names.len(), knowledge.candidates.len());
            for parameter in knowledge.candidates.iter().flat_map(|candidate| &candidate.space) {
                assert!(["float", "log", "int", "choice"].contains(&parameter.kind.as_str()));
                assert!(parameter.kind == "choice" || parameter.range.len() == 2);
            }
        }
    }

    #[test]
    fn an_unknown_kind_has_no_pipeline() {
        assert!(Knowledge::for_kind("graph", "classification").is_none());
    }
}
