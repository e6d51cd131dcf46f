//! The files that an image is built from.

use std::path::Path;

use include_dir::{Dir, DirEntry, include_dir};
use sha2::{Digest, Sha256};

use crate::image::ImageError;

static DOCKER: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/../docker");

/// The variables that name the host's own bundle of certificates, the first that is set wins.
const CA_VARIABLES: [&str; 3] = ["PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"];

/// Files by name, in order, and the image to build on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Context {
    pub(crate) files: Vec<(String, Vec<u8>)>,
    pub(crate) base: Option<String>,
}

impl Context {
    /// The context of one of our images, on a parent.
    pub(crate) fn builtin(name: &str, parent: &str) -> Result<Self, ImageError> {
        let Some(directory) = DOCKER.get_dir(name) else {
            return Err(ImageError::Unknown { name: name.to_owned(), nearest: None });
        };
        let mut files = Vec::new();
        collect(directory, directory.path(), &mut files);
        files.sort();
        Ok(Self { files, base: Some(parent.to_owned()) })
    }

    /// A directory of the host as a context.
    pub(crate) fn directory(root: &Path) -> Result<Self, ImageError> {
        let mut files = Vec::new();
        read(root, root, &mut files).map_err(|source| ImageError::Io {
            verb: "read",
            path: root.to_owned(),
            source,
        })?;
        files.sort();
        Ok(Self { files, base: None })
    }

    /// Sixteen digits over the names and contents of the files and the base.
    pub(crate) fn digest(&self) -> String {
        let mut hasher = Sha256::new();
        let mut field = |bytes: &[u8]| {
            hasher.update((bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        field(self.base.as_deref().unwrap_or_default().as_bytes());
        for (name, content) in &self.files {
            field(name.as_bytes());
            field(content);
        }
        hasher.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }

    /// Packs the files as the engine's build call takes them, with the host's certificates beside them. Those are
    /// no input: what is built does not depend on them.
    pub(crate) fn pack(&self) -> std::io::Result<Vec<u8>> {
        let mut archive = tar::Builder::new(Vec::new());
        let mut append = |name: &str, content: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_mtime(0);
            header.set_size(content.len() as u64);
            archive.append_data(&mut header, name, content)
        };
        for (name, content) in &self.files {
            append(name, content)?;
        }
        if self.base.is_some() {
            append("build-ca.crt", &certificates())?;
        }
        archive.into_inner()
    }
}

fn certificates() -> Vec<u8> {
    let named = CA_VARIABLES.iter().filter_map(std::env::var_os);
    named.filter_map(|path| std::fs::read(path).ok()).next().unwrap_or_default()
}

fn collect(directory: &Dir<'_>, root: &Path, files: &mut Vec<(String, Vec<u8>)>) {
    for entry in directory.entries() {
        match entry {
            DirEntry::Dir(inner) => collect(inner, root, files),
            DirEntry::File(file) => {
                let name = file.path().strip_prefix(root).unwrap_or(file.path());
                if !name.components().any(|part| part.as_os_str() == "__pycache__") {
                    files.push((name.display().to_string(), file.contents().to_vec()));
                }
            }
        }
    }
}

fn read(directory: &Path, root: &Path, files: &mut Vec<(String, Vec<u8>)>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            read(&path, root, files)?;
        } else {
            let name = path.strip_prefix(root).unwrap_or(&path).display().to_string();
            files.push((name, std::fs::read(&path)?));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_follows_the_content_and_the_base() {
        let context = |content: &str, base: &str| Context {
            files: vec![("Dockerfile".into(), content.into())],
            base: Some(base.into()),
        };
        assert_eq!(context("a", "b").digest(), context("a", "b").digest());
        assert_ne!(context("a", "b").digest(), context("a", "c").digest());
        assert_ne!(context("a", "b").digest(), context("c", "b").digest());
    }

    #[test]
    fn every_image_has_a_dockerfile() {
        for name in crate::image::ImageBuilder::builtin_names() {
            let context = Context::builtin(name, "x").unwrap();
            assert!(context.files.iter().any(|(file, _)| file == "Dockerfile"), "{name}");
        }
    }
}
