//! Large outputs, kept once under the digest of their content.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::digest::Digest;

/// Stores contents as `<sha256>.zst` below a directory.
#[derive(Debug, Clone)]
pub struct BlobStore {
    root: PathBuf,
}

/// Says what went wrong with a blob.
#[derive(Debug, thiserror::Error)]
#[error("{verb} a blob in {}", root.display())]
pub struct BlobError {
    verb: &'static str,
    root: PathBuf,
    #[source]
    source: io::Error,
}

impl BlobStore {
    /// Names the directory; it is made at the first write.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Stores what a file holds, in constant memory, and returns its digest. A content that is already there is
    /// not written again.
    pub fn put(&self, content: &mut File) -> Result<Digest, BlobError> {
        content.seek(SeekFrom::Start(0)).map_err(self.error("read"))?;
        let digest = Digest::of_reader(&mut *content).map_err(self.error("read"))?;
        let path = self.path(&digest);
        if !path.exists() {
            std::fs::create_dir_all(&self.root).map_err(self.error("make the directory of"))?;
            content.seek(SeekFrom::Start(0)).map_err(self.error("read"))?;
            let mut temporary = tempfile::NamedTempFile::new_in(&self.root).map_err(self.error("write"))?;
            zstd::stream::copy_encode(content, &mut temporary, 3).map_err(self.error("write"))?;
            temporary.as_file().sync_data().map_err(self.error("sync"))?;
            temporary.persist(&path).map_err(|error| self.error("write")(error.error))?;
        }
        Ok(digest)
    }

    /// Stores a content that is in memory, and returns its digest.
    pub fn put_bytes(&self, content: &[u8]) -> Result<Digest, BlobError> {
        let mut file = tempfile::tempfile().map_err(self.error("write"))?;
        file.write_all(content).map_err(self.error("write"))?;
        self.put(&mut file)
    }

    /// Opens a content for reading, decompressed as it is read.
    pub fn open(&self, digest: &Digest) -> Result<impl Read + use<>, BlobError> {
        let file = File::open(self.path(digest)).map_err(self.error("open"))?;
        zstd::stream::Decoder::new(file).map_err(self.error("decompress"))
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.root.join(Path::new(digest.as_str()).with_extension("zst"))
    }

    fn error(&self, verb: &'static str) -> impl FnOnce(io::Error) -> BlobError + use<> {
        let root = self.root.clone();
        move |source| BlobError { verb, root, source }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_content_is_kept_once_and_comes_back() {
        let home = tempfile::tempdir().unwrap();
        let store = BlobStore::new(home.path().join("blobs"));
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![b'x'; 300_000]).unwrap();
        let digest = store.put(&mut file).unwrap();
        assert_eq!(store.put(&mut file).unwrap(), digest);
        assert_eq!(std::fs::read_dir(home.path().join("blobs")).unwrap().count(), 1);
        let mut back = Vec::new();
        store.open(&digest).unwrap().read_to_end(&mut back).unwrap();
        assert_eq!(back.len(), 300_000);
    }
}
