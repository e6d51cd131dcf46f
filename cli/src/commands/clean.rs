//! `mlgym clean`: removes what is not needed any more, and never what a live run uses.

use std::process::ExitCode;

use clap::Args;
use mlgym_journal::run::RunLock;
use mlgym_journal::{Home, RunManifest};
use mlgym_sandbox::image::ImageBuilder;
use serde::Serialize;

use crate::failure::{Failure, Kind};
use crate::output::say;
use crate::progress::Progress;
use crate::session::Session;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Also remove images whose inputs have changed since
    #[arg(long)]
    images: bool,
    /// Also remove all of mlgym's images
    #[arg(long)]
    all_images: bool,
    /// Also remove prepared data, cloned repositories and unpacked suites, which are made again when they are needed
    #[arg(long)]
    cache: bool,
}

#[derive(Debug, Serialize)]
struct Cleaned {
    containers: usize,
    images: Vec<String>,
    cache: bool,
}

pub(crate) async fn run(session: &Session, arguments: Arguments) -> Result<ExitCode, Failure> {
    let home = session.home()?;
    let engine = session.engine(&Progress::new()).await?;
    let containers = mlgym::reaper::reap(engine.backend.as_ref(), &home).await?;
    let mut images = Vec::new();
    if arguments.images || arguments.all_images {
        let current: Vec<String> = ImageBuilder::builtin_names()
            .iter()
            .filter_map(|name| ImageBuilder::builtin_reference(name).ok())
            .collect();
        for (reference, ..) in engine.images.list().await? {
            let is_current = current.contains(&reference) || reference.starts_with("mlgym/debian:");
            if !arguments.all_images && is_current {
                continue;
            }
            match engine.images.remove(&reference).await {
                Ok(()) => images.push(reference),
                // An image that another one or a container stands on stays.
                Err(error) => say(format!("kept {reference}: {}", Failure::from(error).text())),
            }
        }
    }
    if arguments.cache {
        refuse_while_running(&home)?;
        for name in ["data", "repositories", "suites"] {
            let path = home.cache().join(name);
            match std::fs::remove_dir_all(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    let text = format!("remove {}: {error}", path.display());
                    return Err(Failure::message(Kind::Environment, text));
                }
                _ => {}
            }
        }
    }
    let cleaned = Cleaned { containers, images, cache: arguments.cache };
    session.output.result(&cleaned, |cleaned| {
        let cache = if cleaned.cache { ", and the cache" } else { "" };
        format!("removed {} containers and {} images{cache}", cleaned.containers, cleaned.images.len())
    });
    Ok(ExitCode::SUCCESS)
}

fn refuse_while_running(home: &Home) -> Result<(), Failure> {
    for run in RunManifest::list(home)? {
        if RunLock::is_held(home, &run)? {
            let text = format!("remove the cache: the run {run} is using it");
            return Err(Failure::message(Kind::Usage, text));
        }
    }
    Ok(())
}
