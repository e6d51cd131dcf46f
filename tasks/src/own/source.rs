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
    /// A repository with a table in it.
    Repository {
        /// The repository's directory.
        root: PathBuf,
        /// The table, in it.
        table: PathBuf,
    },
}

/// The most of a README that is told on.
const MOST_README: usize = 6_000;

impl Source {
    /// Looks at a path without reading what it holds. `table` names the table of a repository, from its directory or from
    /// here, where it has several.
    pub fn look(path: &Path, table: Option<&Path>) -> Result<Self, OwnError> {
        let shown = path.display();
        let refused = |text: String| Err(OwnError::Refused(text));
        let meta = match std::fs::metadata(path) {
            Ok(meta) => meta,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return refused(format!(
                    "there is no {shown}: name a CSV or Parquet file, a directory of images, or a repository with a table"
                ));
            }
            Err(source) => return Err(io("look at", path)(source)),
        };
        let is_directory = meta.is_dir();
        if !is_directory && !meta.is_file() {
            return refused(format!("{shown} is neither a file nor a directory"));
        }
        if !is_directory {
            return match table {
                None => Ok(Self::Table(path.to_owned())),
                Some(_) => {
                    refused(format!("{shown} is a file: --table is for the directory of a repository"))
                }
            };
        }
        let files: Vec<PathBuf> = regular_files(path)
            .map_err(io("list", path))?
            .into_iter()
            .filter(|file| !is_hidden(file.strip_prefix(path).unwrap_or(file)))
            .collect();
        let holds_images = files.iter().any(|file| is_image(file));
        if table.is_some() || is_repository(path, &files, holds_images) {
            let table = named_table(path, table, &files)?;
            return Ok(Self::Repository { root: path.to_owned(), table });
        }
        if holds_images {
            return Ok(Self::Images(path.to_owned()));
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
            Self::Table(_) | Self::Repository { .. } if request.target.is_none() => {
                refused("a table needs --target COLUMN: the column that is to be predicted")
            }
            Self::Images(_) if request.time.is_some() || request.group.is_some() => {
                refused("images are split at random: --time and --group are for tables")
            }
            _ => Ok(()),
        }
    }

    /// Where the data lies.
    pub fn path(&self) -> &Path {
        match self {
            Self::Table(path) | Self::Images(path) | Self::Repository { table: path, .. } => path,
        }
    }

    /// What the repository's README says, from its beginning; empty where there is none.
    pub(crate) fn readme(&self) -> Result<String, OwnError> {
        let Self::Repository { root, .. } = self else { return Ok(String::new()) };
        let Some(path) = readme_of(root) else { return Ok(String::new()) };
        let raw = std::fs::read(&path).map_err(io("read", &path))?;
        let text = String::from_utf8_lossy(&raw);
        let end = text.char_indices().nth(MOST_README).map_or(text.len(), |(at, _)| at);
        Ok(text[..end].trim().to_owned())
    }

    /// What the user should know about the choice of the data; `None` where there was none.
    pub(crate) fn said(&self) -> Option<String> {
        let Self::Repository { root, table } = self else { return None };
        let table = table.strip_prefix(root).unwrap_or(table).display();
        Some(format!(
            "{table} of the repository is learnt from; its other files are only read for the README"
        ))
    }

    /// The word by which the preparation knows it.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Table(_) | Self::Repository { .. } => "table",
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
        let name = match self {
            Self::Repository { root, .. } => Self::Images(root.clone()).file_name(),
            _ => self.file_name(),
        };
        let stem = match self {
            Self::Table(_) => name.split('.').find(|part| !part.is_empty()).unwrap_or("data"),
            _ => &name,
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
        // It becomes part of the instruction.
        builder.field(self.readme()?.as_bytes());
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

/// Tells whether a path has a part that begins with a dot.
fn is_hidden(path: &Path) -> bool {
    path.iter().any(|part| part.as_encoded_bytes().starts_with(b"."))
}

fn readme_of(root: &Path) -> Option<PathBuf> {
    let names = ["README.md", "README.rst", "README.txt", "README", "readme.md"];
    names.iter().map(|name| root.join(name)).find(|path| path.is_file())
}

/// Tells a repository from a directory of data: it is under version control, or holds code, or says what it is.
fn is_repository(root: &Path, files: &[PathBuf], holds_images: bool) -> bool {
    let is_code = |file: &PathBuf| ["py", "ipynb", "r", "jl", "scala"].contains(&ending(file).as_str());
    let holds_code = files.iter().any(is_code);
    root.join(".git").exists() || holds_code || (readme_of(root).is_some() && !holds_images)
}

/// The table of a repository: the one that is named, the only one, or the only one to train on.
fn named_table(root: &Path, named: Option<&Path>, files: &[PathBuf]) -> Result<PathBuf, OwnError> {
    let shown = root.display();
    if let Some(named) = named {
        let inside = root.join(named);
        let found = [inside, named.to_owned()].into_iter().find(|path| path.is_file());
        return found.ok_or_else(|| {
            let hint = tables_of(root, files);
            OwnError::Refused(format!("there is no table {} in {shown}{}", named.display(), listed(&hint)))
        });
    }
    let tables = tables_of(root, files);
    let to_train: Vec<&PathBuf> = tables
        .iter()
        .filter(|path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().to_lowercase().contains("train"))
        })
        .collect();
    match (tables.as_slice(), to_train.as_slice()) {
        ([only], _) => Ok(root.join(only)),
        (_, [only]) => Ok(root.join(only)),
        ([], _) => Err(OwnError::Refused(format!(
            "{shown} is a repository without a table: name the data with --table, or the file or directory itself"
        ))),
        _ => Err(OwnError::Refused(format!(
            "{shown} is a repository with several tables: name one with --table{}",
            listed(&tables)
        ))),
    }
}

/// The tables of a repository, from its directory, less what programs write.
fn tables_of(root: &Path, files: &[PathBuf]) -> Vec<PathBuf> {
    let is_written =
        |name: &str| ["submission", "prediction", "sample_sub"].iter().any(|word| name.contains(word));
    let mut tables: Vec<PathBuf> = files
        .iter()
        .filter(|file| is_table(file))
        .filter(|file| {
            file.file_name().is_some_and(|name| !is_written(&name.to_string_lossy().to_lowercase()))
        })
        .filter_map(|file| file.strip_prefix(root).ok().map(Path::to_owned))
        .collect();
    tables.sort();
    tables
}

fn listed(tables: &[PathBuf]) -> String {
    if tables.is_empty() {
        return String::new();
    }
    let shown: Vec<_> = tables.iter().take(8).map(|table| table.display().to_string()).collect();
    let more = if tables.len() > shown.len() { ", …" } else { "" };
    format!(", as in {}{more}", shown.join(", "))
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
        Source::look(directory.path(), None)
            .map_err(|error| error.to_string().replace(&directory.path().display().to_string(), "DIR"))
    }

    #[test]
    fn a_directory_is_told_by_the_names_in_it() {
        assert!(matches!(look(&["cat/1.PNG", "dog/2.jpg"]), Ok(Source::Images(_))));
        let check = |files: &[&str], word: &str| {
            let said = look(files).unwrap_err();
            assert!(said.contains(word), "{files:?}: {said}");
        };
        check(&["README.md", "train.py"], "is a repository without a table");
        check(&["README.md", "a.csv", "b.csv"], "name one with --table, as in a.csv, b.csv");
        check(&["x.py", "train_a.csv", "train_b.csv"], "with several tables");
        check(&["a.csv"], "name one of its tables, as in DIR/a.csv");
        check(&["notes.txt"], "holds no images");
        check(&[], "holds no images");
    }

    #[test]
    fn a_repository_is_told_from_data_and_its_table_is_found_by_its_name() {
        let check = |files: &[&str], expected: &str| match look(files) {
            Ok(Source::Repository { root, table }) => {
                assert_eq!(table.strip_prefix(root).unwrap(), Path::new(expected), "{files:?}");
            }
            other => panic!("{files:?}: {other:?}"),
        };
        check(&["README.md", "data/only.csv"], "data/only.csv");
        check(&["fit.py", "logo.png", "data/train.csv", "data/test.csv"], "data/train.csv");
        check(&["a.ipynb", "x.parquet", "predictions.csv", "sample_submission.csv"], "x.parquet");
        check(&[".git/config", ".git/x.csv", "y.csv"], "y.csv");
        // A collection of pictures that says what it is is no repository.
        assert!(matches!(look(&["README.md", "cat/1.png", "labels.csv"]), Ok(Source::Images(_))));
    }

    #[test]
    fn the_table_that_is_named_is_taken_and_one_that_is_not_there_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        std::fs::create_dir(root.join("sets")).unwrap();
        for file in ["sets/a.csv", "sets/b.csv", "README.md"] {
            std::fs::write(root.join(file), "tide tables").unwrap();
        }
        let look = |table: &str| Source::look(root, Some(Path::new(table)));
        let found = look("sets/b.csv").unwrap();
        assert_eq!(found.path(), root.join("sets/b.csv"));
        assert_eq!(found.readme().unwrap(), "tide tables");
        assert!(found.said().unwrap().starts_with("sets/b.csv of the repository"));
        let error = look("c.csv").unwrap_err().to_string();
        assert!(
            error.contains("no table c.csv") && error.ends_with("as in sets/a.csv, sets/b.csv"),
            "{error}"
        );
        let file = Source::look(&root.join("README.md"), Some(Path::new("x"))).unwrap_err().to_string();
        assert!(file.contains("--table is for the directory of a repository"), "{file}");
    }

    #[test]
    fn what_is_not_there_is_said() {
        let error = Source::look(Path::new("/nowhere/x.csv"), None).unwrap_err();
        assert!(matches!(error, OwnError::Refused(ref text) if text.contains("there is no /nowhere/x.csv")));
    }
}
