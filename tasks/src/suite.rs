//! Suites: directories of tasks, the built-in ones carried in the program.

use std::path::{Path, PathBuf};

use crate::error::TaskError;
use crate::spec::Task;

/// A named list of tasks.
#[derive(Debug, Clone)]
pub struct Suite {
    /// The suite's name.
    pub name: String,
    /// Its tasks, by name.
    pub tasks: Vec<Task>,
}

/// Says why a suite cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SuiteError {
    /// There is no suite of this name, and no directory either.
    #[error("find the suite {name:?}{}", hint(.nearest, .known))]
    Unknown {
        /// What was asked for.
        name: String,
        /// The known name that is most like it.
        nearest: Option<String>,
        /// All known names.
        known: Vec<String>,
    },
    /// There is no task of this name.
    #[error("find the task {name:?}{}", hint(.nearest, .known))]
    UnknownTask {
        /// What was asked for.
        name: String,
        /// The known name that is most like it.
        nearest: Option<String>,
        /// All known names.
        known: Vec<String>,
    },
    /// A directory holds no task.
    #[error("find a task in {}: no directory in it has a task.toml", path.display())]
    Empty {
        /// The directory.
        path: PathBuf,
    },
    /// The built-in suites cannot be unpacked.
    #[error("unpack the built-in suites into {}", path.display())]
    Unpack {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A task of the suite cannot be used.
    #[error(transparent)]
    Task(#[from] TaskError),
}

fn hint(nearest: &Option<String>, known: &[String]) -> String {
    let known = known.join(", ");
    match nearest {
        Some(nearest) => format!(": did you mean {nearest:?}? (known: {known})"),
        None => format!(" (known: {known})"),
    }
}

impl Suite {
    /// Loads a suite: a built-in one by its name (unpacked below `cache`), or a directory of tasks, or one task's
    /// directory.
    pub fn load(name_or_path: &str, cache: &Path) -> Result<Self, SuiteError> {
        let _ = (name_or_path, cache);
        Err(SuiteError::Unknown { name: name_or_path.to_owned(), nearest: None, known: Vec::new() })
    }

    /// Lists the built-in suites' names.
    pub fn builtin_names() -> Vec<String> {
        Vec::new()
    }

    /// Finds a task by its full or its short name.
    pub fn task(&self, name: &str) -> Result<&Task, SuiteError> {
        let known = || self.tasks.iter().map(|task| task.name.short().to_owned()).collect();
        let found = self.tasks.iter().find(|task| task.name.as_str() == name || task.name.short() == name);
        found.ok_or_else(|| SuiteError::UnknownTask { name: name.to_owned(), nearest: None, known: known() })
    }
}
