//! A LiteLLM proxy with models whose answers are known, for tests of what speaks with language models.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tempfile::TempDir;

/// The key that the proxy wants.
pub const KEY: &str = "sk-litellm-key-that-nobody-may-see";

/// A proxy that runs; it ends when nobody holds it any more, and with the process that started it.
#[derive(Debug)]
pub struct LiteLlm {
    /// Where it listens: `http://127.0.0.1:<port>`.
    pub url: String,
    /// A file that holds its key.
    pub key_file: PathBuf,
    server: Child,
    _directory: TempDir,
}

impl LiteLlm {
    /// Starts the proxy, after installing it where it is missing; tests of one process that overlap share it.
    pub fn start() -> Arc<Self> {
        static SHARED: Mutex<Weak<LiteLlm>> = Mutex::new(Weak::new());
        // A test that failed while it started the proxy says so itself.
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = shared.upgrade() {
            return running;
        }
        let started = Arc::new(Self::launch());
        *shared = Arc::downgrade(&started);
        started
    }

    fn launch() -> Self {
        let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("litellm");
        let program = crate::script_made_ready("litellm.sh", &[]);
        let directory = tempfile::tempdir().unwrap();
        for file in ["config.yaml", "mock_model.py"] {
            std::fs::copy(files.join(file), directory.path().join(file)).unwrap();
        }
        let key_file = directory.path().join("key");
        std::fs::write(&key_file, KEY).unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut server = Command::new(program)
            .args(["--config", "config.yaml", "--host", "127.0.0.1", "--port", &free.port().to_string()])
            .current_dir(directory.path())
            .env("LITELLM_MASTER_KEY", KEY)
            // It asks nobody for anything.
            .env("LITELLM_LOCAL_MODEL_COST_MAP", "True")
            .env("NO_PROXY", "*")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(server.stderr.take().unwrap()).lines().map_while(Result::ok);
        let mut said = String::new();
        let is_up = lines.by_ref().any(|line| {
            said.push_str(&line);
            said.push('\n');
            line.contains("Uvicorn running on")
        });
        assert!(is_up, "the proxy does not start: {said}");
        // What it goes on to say must not fill its pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self { url: format!("http://{free}"), key_file, server, _directory: directory }
    }
}

impl Drop for LiteLlm {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
