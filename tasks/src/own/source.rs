//! What lies at the path that a user named, told from names alone.

use std::path::{Path, PathBuf};

use mlgym_journal::Digest;
use mlgym_journal::digest::DigestBuilder;

use crate::own::{OwnError, OwnRequest, io, preparation};
use crate::prepare::regular_files;

/// The endings of images that can be read.
const IMAGES: [&str; 7] = ["png", "jpg", "jpeg", "bmp", "gif", "webp", "tif"];

/// The user's data on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file, to be read as a table.
    Table(PathBuf),
    /// A directory of images, a class to a directory or with a table of labels.
    Images(PathBuf),
}

impl Source {
    /// Looks at a path without reading what it holds.
    pub fn look(path: &Path) -> Result<Self, OwnError> {
        let shown = path.display();
        let refused = |text: String| Err(OwnError::Refused(text));
        let meta = match std::fs::metadata(path) {
            Ok(meta) => meta,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return refused(format!(
                    "there is no {shown}: name a CSV or Parquet file, or a directory of images"
                ));
            }
            Err(source) => return Err(io("look at", path)(source)),
        };
        if meta.is_file() {
            return Ok(Self::Table(path.to_owned()));
        }
        if !meta.is_dir() {
            return refused(format!("{shown} is neither a file nor a directory"));
        }
        let files = regular_files(path).map_err(io("list", path))?;
        if files.iter().any(|file| is_image(file)) {
            return Ok(Self::Images(path.to_owned()));
        }
        let holds = |name: &str| files.iter().any(|file| file.parent() == Some(path) && file.ends_with(name));
        if holds("README.md") || holds("README.rst") || holds("README") || path.join(".git").exists() {
            return refused(format!(
                "{shown} looks like a repository, and solving repositories is not built yet: name a CSV or Parquet file \
                 in it, or write a task for it (`mlgym task show` shows some) and use `mlgym eval --suite`"
            ));
        }
        let tables = files.iter().filter(|file| is_table(file)).take(3);
        let tables: Vec<_> = tables.map(|file| file.display().to_string()).collect();
        refused(if tables.is_empty() {
            format!("{shown} holds no images ({}) and no table", IMAGES.join(", "))
        } else {
            format!("{shown} holds no images: name one of its tables, as in {}", tables.join(", "))
        })
    }

    /// Checks what can be told without looking into the data.
    pub(crate) fn accepts(&self, request: &OwnRequest) -> Result<(), OwnError> {
        let refused = |text: &str| Err(OwnError::Refused(text.to_owned()));
        match self {
            Self::Table(_) if request.target.is_none() => {
                refused("a table needs --target COLUMN: the column that is to be predicted")
            }
            Self::Images(_) if request.time.is_some() || request.group.is_some() => {
                refused("images are split at random: --time and --group are for tables")
            }
            _ => Ok(()),
        }
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        match self {
            Self::Table(path) | Self::Images(path) => path,
        }
    }

    /// The word by which the preparation knows it.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Table(_) => "table",
            Self::Images(_) => "images",
        }
    }

    /// The file's or the directory's own name.
    pub(crate) fn file_name(&self) -> String {
        let whole = self.path().canonicalize().unwrap_or_else(|_| self.path().to_owned());
        let named = self.path().file_name().or_else(|| whole.file_name());
        named.map_or_else(|| "data".to_owned(), |name| name.to_string_lossy().into_owned())
    }

    /// A name for the task and for what is delivered: lower-case letters, digits and dashes.
    pub fn short_name(&self) -> String {
        let name = self.file_name();
        let stem = match self {
            Self::Table(_) => name.split('.').find(|part| !part.is_empty()).unwrap_or("data"),
            Self::Images(_) => &name,
        };
        let plain: String = stem
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
            .collect();
        let parts: Vec<_> = plain.split('-').filter(|part| !part.is_empty()).collect();
        let name: String = parts.join("-").chars().take(40).collect();
        if name.is_empty() { "data".to_owned() } else { name.trim_end_matches('-').to_owned() }
    }

    /// Names the task by all that decides what it will be: the data, the request, and what reads it.
    pub(crate) fn digest(&self, request: &OwnRequest, image: &str) -> Result<Digest, OwnError> {
        let mut builder = DigestBuilder::default();
        builder.field(b"mlgym own 1").field(image.as_bytes()).field(self.kind().as_bytes());
        builder.field(self.file_name().as_bytes());
        // A request is made of texts and numbers, which always have JSON.
        builder.field(&serde_json::to_vec(request).unwrap_or_default());
        for (name, content) in preparation::FILES {
            builder.field(name.as_bytes()).field(content.as_bytes());
        }
        let root = self.path();
        let mut files = if root.is_dir() {
            regular_files(root).map_err(io("list", root))?
        } else {
            vec![root.to_owned()]
        };
        files.sort();
        for file in files {
            let name = file.strip_prefix(root).unwrap_or(&file).as_os_str().as_encoded_bytes();
            let content =
                std::fs::File::open(&file).and_then(Digest::of_reader).map_err(io("read", &file))?;
            builder.field(name).field(content.as_str().as_bytes());
        }
        Ok(builder.finish())
    }
}

fn ending(path: &Path) -> String {
    path.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase()).unwrap_or_default()
}

fn is_image(path: &Path) -> bool {
    IMAGES.contains(&ending(path).as_str())
}

fn is_table(path: &Path) -> bool {
    ["csv", "tsv", "parquet", "gz"].contains(&ending(path).as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_whatever_a_file_is_called() {
        let check = |path: &str, expected: &str| {
            assert_eq!(Source::Table(PathBuf::from(path)).short_name(), expected, "{path}");
        };
        check("/data/Wine Quality (red).csv", "wine-quality-red");
        check("houses.csv.gz", "houses");
        check("Kölner Häuser.parquet", "k-lner-h-user");
        check("…", "data");
        check(&format!("{}.csv", "x".repeat(90)), &"x".repeat(40));
    }

    fn look(files: &[&str]) -> Result<Source, String> {
        let directory = tempfile::tempdir().unwrap();
        for file in files {
            let path = directory.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
        Source::look(directory.path())
            .map_err(|error| error.to_string().replace(&directory.path().display().to_string(), "DIR"))
    }

    #[test]
    fn a_directory_is_told_by_the_names_in_it() {
        assert!(matches!(look(&["cat/1.PNG", "dog/2.jpg"]), Ok(Source::Images(_))));
        let check = |files: &[&str], word: &str| {
            let said = look(files).unwrap_err();
            assert!(said.contains(word), "{files:?}: {said}");
        };
        check(&["README.md", "train.py"], "looks like a repository");
        check(&["a.csv"], "name one of its tables, as in DIR/a.csv");
        check(&["notes.txt"], "holds no images");
        check(&[], "holds no images");
    }

    #[test]
    fn what_is_not_there_is_said() {
        let error = Source::look(Path::new("/nowhere/x.csv")).unwrap_err();
        assert!(matches!(error, OwnError::Refused(ref text) if text.contains("there is no /nowhere/x.csv")));
    }
}
