//! `mlgym doctor`: what is missing on this machine.

use std::process::ExitCode;

use mlgym_sandbox::image::ImageBuilder;
use serde::Serialize;

use crate::failure::{Failure, Kind};
use crate::progress::Progress;
use crate::session::{Engine, Session};

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    what: &'static str,
    ok: bool,
    found: String,
    /// What to do about it.
    fix: Option<String>,
}

pub(crate) async fn run(session: &Session) -> Result<ExitCode, Failure> {
    let mut findings = Vec::new();
    let home = session.home();
    findings.push(match &home {
        Ok(home) => Finding { what: "home", ok: true, found: home.root().display().to_string(), fix: None },
        Err(failure) => Finding {
            what: "home",
            ok: false,
            found: failure.text(),
            fix: Some("export MLGYM_HOME=/a/directory/you/can/write".to_owned()),
        },
    });
    if let Ok(home) = &home {
        findings.push(match session.leaderboard(home).await {
            Ok(_) => Finding {
                what: "leaderboard",
                ok: true,
                found: home.database().display().to_string(),
                fix: None,
            },
            Err(failure) => Finding {
                what: "leaderboard",
                ok: false,
                found: failure.text(),
                fix: Some("mv the database away and run `mlgym leaderboard rebuild`".to_owned()),
            },
        });
    }
    match session.engine(&Progress::new()).await {
        Err(error) => findings.push(Finding {
            what: "engine",
            ok: false,
            found: error.text(),
            fix: Some("sudo systemctl start docker && sudo usermod -aG docker $USER".to_owned()),
        }),
        Ok(found) => engine(&found, &mut findings).await?,
    }
    session.output.result(&findings, |findings| findings.iter().map(line).collect());
    let is_well = findings.iter().all(|finding| finding.ok);
    Ok(if is_well { ExitCode::SUCCESS } else { Kind::Environment.code() })
}

async fn engine(engine: &Engine, findings: &mut Vec<Finding>) -> Result<(), Failure> {
    let facts = engine.backend.facts().await?;
    findings.push(Finding {
        what: "engine",
        ok: true,
        found: format!(
            "{}{}, {} cores, {} MB, cgroup v{}, {} ({})",
            facts.version,
            if facts.api_version.is_empty() {
                String::new()
            } else {
                format!(" (API {})", facts.api_version)
            },
            facts.cpus,
            facts.memory_bytes >> 20,
            facts.cgroup_version,
            facts.storage_driver,
            if facts.disk_quota { "disk limits by quota" } else { "disk limits watched" },
        ),
        fix: None,
    });
    let known = engine.images.list().await?;
    let reference = ImageBuilder::builtin_reference("ml")?;
    let is_there = known.iter().any(|(image, ..)| *image == reference);
    findings.push(Finding {
        what: "image",
        // A missing image is built by the first run.
        ok: true,
        found: if is_there {
            reference
        } else {
            format!("{reference} is not built yet; the first run builds it")
        },
        fix: (!is_there).then(|| "mlgym image build".to_owned()),
    });
    Ok(())
}

fn line(finding: &Finding) -> String {
    let mark = if finding.ok { "ok     " } else { "missing" };
    let fix = finding.fix.as_ref().map(|fix| format!("\n         {fix}")).unwrap_or_default();
    format!("{mark}  {}: {}{fix}\n", finding.what, finding.found)
}
