//! Files in and out: what may pass, and what went wrong.

use std::io;
use std::path::PathBuf;

/// What `put` takes.
#[derive(Debug, Clone)]
pub enum FileSource {
    /// A directory's contents, regular files and directories only.
    Directory(PathBuf),
    /// One regular file of the host, under this name.
    HostFile {
        /// The name below the target.
        name: String,
        /// Where it lies on the host.
        path: PathBuf,
    },
    /// One file of this name with these bytes.
    File {
        /// The name below the target.
        name: String,
        /// The content.
        content: Vec<u8>,
    },
}

/// The most that `get` copies out.
#[derive(Debug, Clone, Copy)]
pub struct TransferCaps {
    /// Bytes in all files.
    pub bytes: u64,
    /// Files and directories.
    pub entries: u64,
}

impl Default for TransferCaps {
    fn default() -> Self {
        Self { bytes: 512 << 20, entries: 20_000 }
    }
}

/// What `get` copied out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transferred {
    /// Bytes in all files.
    pub bytes: u64,
    /// Files and directories.
    pub entries: u64,
    /// Whether the path was a directory.
    pub directory: bool,
}

/// Says why files did not pass. All but `Io` and, when nothing runs in the sandbox any more, `Broken` are the fault of
/// what lies or runs in the sandbox, and are written so that an agent may read them.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// Nothing is there.
    #[error("find {path}: there is no such file")]
    Missing {
        /// The path in the sandbox.
        path: String,
    },
    /// A link, device, pipe or socket.
    #[error("copy {path}: it is {kind}, and only regular files and directories are accepted")]
    NotRegular {
        /// The path in the sandbox.
        path: String,
        /// What it is, with its article.
        kind: &'static str,
    },
    /// More than the caps.
    #[error("copy {path}: it holds more than the {limit} {unit} that are accepted")]
    TooLarge {
        /// The path in the sandbox.
        path: String,
        /// The cap.
        limit: u64,
        /// Bytes or entries.
        unit: &'static str,
    },
    /// A name that would leave the target directory.
    #[error("copy {path}: the name is not accepted")]
    Unsafe {
        /// The path in the sandbox.
        path: String,
    },
    /// The copy ended before its end, or is of nothing that ever was: the engine broke off, or a program changed what was
    /// being copied.
    #[error("copy {path}: it changed while it was copied")]
    Broken {
        /// The path in the sandbox.
        path: String,
        /// What the archive lacked.
        #[source]
        source: io::Error,
    },
    /// The host's file system refused.
    #[error("{verb} {} on the host", path.display())]
    Io {
        /// What was tried.
        verb: &'static str,
        /// The host's path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}
