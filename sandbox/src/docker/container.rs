//! One container of the engine: programs, files, snapshots and its end.

use std::collections::BTreeMap;
use std::path::Path;

use async_trait::async_trait;
use bollard::Docker;
use bollard::errors::Error;
use bollard::models::ContainerConfig;
use bollard::query_parameters::{
    CommitContainerOptionsBuilder, KillContainerOptionsBuilder, RestartContainerOptionsBuilder,
    WaitContainerOptions,
};
use futures_util::StreamExt;

use crate::backend::SandboxError;
use crate::docker::disk::DiskWatch;
use crate::docker::exec::attach;
use crate::docker::{DockerBackend, archive, engine, isolation};
use crate::resident::container::{Attached, Container, Program};
use crate::spec::{SandboxId, SandboxSpec, SnapshotId};
use crate::transfer::{FileSource, TransferCaps, Transferred};

#[derive(Debug)]
pub(crate) struct DockerContainer {
    docker: Docker,
    id: SandboxId,
    user: &'static str,
    workdir: String,
    labels: BTreeMap<String, String>,
    disk: Option<DiskWatch>,
    isolation: serde_json::Value,
}

impl DockerContainer {
    pub(crate) async fn create(backend: &DockerBackend, spec: &SandboxSpec) -> Result<Self, SandboxError> {
        let docker = &backend.docker;
        let started = isolation::create(backend, spec).await?;
        let user = spec.user.as_exec_user();
        let disk = started.watch_disk.then(|| DiskWatch {
            docker: docker.clone(),
            id: started.id.clone(),
            user,
            workdir: spec.workdir.clone(),
            limit: spec.limits.storage_bytes,
        });
        Ok(Self {
            docker: docker.clone(),
            id: started.id,
            user,
            workdir: spec.workdir.clone(),
            labels: spec.labels.clone(),
            disk,
            isolation: started.isolation,
        })
    }
}

#[async_trait]
impl Container for DockerContainer {
    fn id(&self) -> &SandboxId {
        &self.id
    }

    fn isolation(&self) -> serde_json::Value {
        self.isolation.clone()
    }

    fn workdir(&self) -> &str {
        &self.workdir
    }

    async fn attach(&self, program: Program) -> Result<Attached, SandboxError> {
        attach(&self.docker, &self.id, self.user, program).await
    }

    async fn restart(&self) -> Result<(), SandboxError> {
        let options = RestartContainerOptionsBuilder::default().t(0).build();
        self.docker.restart_container(&self.id.0, Some(options)).await.map_err(engine("restart"))
    }

    async fn halt(&self) -> Result<(), SandboxError> {
        let options = KillContainerOptionsBuilder::default().signal("SIGKILL").build();
        match self.docker.kill_container(&self.id.0, Some(options)).await {
            // 409: it is not running any more.
            Ok(()) | Err(Error::DockerResponseServerError { status_code: 409, .. }) => {}
            Err(source) => return Err(engine("halt")(source)),
        }
        let mut ended = self.docker.wait_container(&self.id.0, None::<WaitContainerOptions>);
        // The exit code of a killed container comes as an error, and is of no interest.
        let _ = ended.next().await;
        Ok(())
    }

    async fn remove(&self) -> Result<(), SandboxError> {
        super::remove(&self.docker, &self.id).await
    }

    async fn put(&self, target: &str, source: FileSource) -> Result<(), SandboxError> {
        archive::put(&self.docker, &self.id, target, source).await
    }

    async fn get(&self, path: &str, target: &Path, caps: TransferCaps) -> Result<Transferred, SandboxError> {
        archive::get(&self.docker, &self.id, path, target, caps).await
    }

    async fn disk_full(&self) {
        match &self.disk {
            Some(watch) => watch.full().await,
            None => std::future::pending().await,
        }
    }

    async fn snapshot(&self) -> Result<SnapshotId, SandboxError> {
        // Podman takes labels only as a Dockerfile's lines.
        let quoted = |text: &str| format!("{text:?}");
        let labels =
            self.labels.iter().map(|(key, value)| format!("LABEL {}={}", quoted(key), quoted(value)));
        let changes = labels.collect::<Vec<_>>().join("\n");
        // The engine's own pause, so that no file is caught half-written.
        let options = CommitContainerOptionsBuilder::default()
            .container(&self.id.0)
            .changes(&changes)
            .pause(true)
            .build();
        let image = self.docker.commit_container(options, ContainerConfig::default()).await;
        let image = image.map_err(engine("snapshot"))?;
        Ok(super::snapshot_id(&image.id))
    }
}
