//! Keys: where they are read from, and what keeps them out of everything that is written.
//!
//! A key comes from the environment or from a file, is sent in one header, and is known nowhere else. A plan holds the
//! variable's or the file's name instead, so a run can be resumed by whoever has the key.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

/// What stands where a key would.
const MASK: &str = "[key]";

/// Keys shorter than this are words, such as `none`, and are left alone in what a model answers.
const SHORTEST: usize = 8;

/// A key. No way of printing or storing it shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// Says why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The variable is not set.
    #[error("find the key: set the environment variable {0}, or name a file as `key_file` in mlgym.toml")]
    Unset(String),
    /// The file cannot be read.
    #[error("read the key's file {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// What was found can be no key.
    #[error("use the key of {0}: it is empty or has characters that no header can carry")]
    Unusable(String),
}

impl Secret {
    /// Takes a key as it was found, without the white space around it.
    pub fn new(text: &str, place: &str) -> Result<Self, SecretError> {
        let text = text.trim();
        let is_usable = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        is_usable.then(|| Self(text.to_owned())).ok_or_else(|| SecretError::Unusable(place.to_owned()))
    }

    /// Reads a key from the environment.
    pub fn from_env(variable: &str) -> Result<Self, SecretError> {
        let text = std::env::var_os(variable).filter(|text| !text.is_empty());
        let text = text.ok_or_else(|| SecretError::Unset(variable.to_owned()))?;
        Self::new(&text.to_string_lossy(), variable)
    }

    /// Reads a key from a file that holds nothing else.
    pub fn from_file(path: &Path) -> Result<Self, SecretError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| SecretError::File { path: path.to_owned(), source })?;
        Self::new(&text, &path.display().to_string())
    }

    /// Shows the key, to whoever makes the header.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }

    /// Replaces the key wherever a text holds it: for what providers say.
    pub fn scrub(&self, text: &str) -> String {
        let text = text.replace(&self.0, MASK);
        // As JSON writes it, where that differs.
        let escaped = serde_json::Value::from(self.0.as_str()).to_string();
        let escaped = escaped.trim_matches('"');
        if escaped == self.0 { text } else { text.replace(escaped, MASK) }
    }

    /// Replaces the key in what a model answers, which a server that repeats its headers could have put there.
    pub(super) fn scrub_answer(&self, text: &mut String) {
        if self.0.len() >= SHORTEST {
            *text = self.scrub(text);
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(MASK)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(MASK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_prints_a_key() {
        let secret = Secret::new(" sk-\"1234\\5678\n", "test").unwrap();
        let json = serde_json::to_string(&secret).unwrap();
        for text in [format!("{secret:?}"), format!("{secret}"), format!("{:?}", Some(&secret)), json] {
            assert!(!text.contains("1234"), "{text}");
        }
        let said = format!("bad key {} and {}", secret.expose(), serde_json::json!({"k": secret.expose()}));
        assert_eq!(secret.scrub(&said), r#"bad key [key] and {"k":"[key]"}"#);
    }

    #[test]
    fn a_key_that_no_header_can_carry_is_refused_without_showing_it() {
        for text in ["", "  \n", "two words", "line\nbreak", "schlüssel"] {
            let error = Secret::new(text, "SOME_KEY").unwrap_err().to_string();
            assert!(error.contains("SOME_KEY"), "{error}");
            assert!(text.trim().is_empty() || !error.contains(text), "{error}");
        }
    }

    #[test]
    fn a_key_is_read_from_a_file_and_a_missing_file_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        std::fs::write(&path, "sk-from-a-file\n").unwrap();
        assert_eq!(Secret::from_file(&path).unwrap().expose(), "sk-from-a-file");
        let error = Secret::from_file(&directory.path().join("none")).unwrap_err().to_string();
        assert!(error.contains("none"), "{error}");
    }
}
