//! `mlgym image`: the images that sandboxes start from.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use mlgym_sandbox::image::ImageBuilder;
use serde::Serialize;

use crate::failure::Failure;
use crate::output::table;
use crate::progress::Progress;
use crate::session::Session;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build images, and what they stand on, where they are missing
    Build {
        /// Which: base, prepare, ml, torch
        #[arg(default_value = "ml")]
        names: Vec<String>,
    },
    /// List the images that mlgym made on this engine
    List,
}

#[derive(Debug, Serialize)]
struct ImageLine {
    reference: String,
    digest: String,
    bytes: u64,
    current: bool,
}

pub(crate) async fn run(session: &Session, arguments: Arguments) -> Result<ExitCode, Failure> {
    let progress = Progress::new();
    let engine = session.engine(&progress).await?;
    match arguments.command {
        Command::Build { names } => {
            for name in &names {
                ImageBuilder::builtin_reference(name.trim_start_matches("mlgym/"))?;
            }
            let mut built = Vec::new();
            for name in &names {
                built.push(engine.images.builtin(name.trim_start_matches("mlgym/")).await?);
            }
            session.output.result(&built, |built| {
                built.iter().map(|image| format!("{} {}\n", image.reference, image.digest)).collect()
            });
        }
        Command::List => {
            let current: Vec<String> = ImageBuilder::builtin_names()
                .iter()
                .filter_map(|name| ImageBuilder::builtin_reference(name).ok())
                .collect();
            let lines: Vec<ImageLine> = engine
                .images
                .list()
                .await?
                .into_iter()
                .map(|(reference, digest, bytes)| ImageLine {
                    current: current.contains(&reference) || reference.starts_with("mlgym/debian:"),
                    reference,
                    digest,
                    bytes,
                })
                .collect();
            session.output.result(&lines, |lines| {
                let rows: Vec<_> = lines
                    .iter()
                    .map(|line| {
                        let state = if line.current { "current" } else { "old" };
                        vec![
                            line.reference.clone(),
                            format!("{} MB", line.bytes / 1_000_000),
                            state.to_owned(),
                        ]
                    })
                    .collect();
                table(&["image", ">size", "inputs"], &rows)
            });
        }
    }
    Ok(ExitCode::SUCCESS)
}
