//! The Docker Engine backend: any engine with API 1.41 or newer behind `DOCKER_HOST` or the default socket.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bollard::Docker;
use bollard::models::SystemInfoCgroupVersionEnum;
use bollard::query_parameters::{ListContainersOptionsBuilder, RemoveContainerOptionsBuilder};

use crate::backend::{Backend, EngineFacts, Sandbox, SandboxError, SandboxSummary};
use crate::spec::{SandboxId, SandboxSpec};

mod archive;
mod container;
mod disk;
mod exec;
mod jobs;
mod marker;
mod sandbox;
mod shell;

/// Storage drivers that enforce a container's size with `storage_opt`.
const QUOTA_DRIVERS: [&str; 4] = ["btrfs", "zfs", "devicemapper", "windowsfilter"];

/// Ids of containers whose owner was dropped without removing them; the next sweep does.
pub(crate) type Orphans = Arc<Mutex<Vec<SandboxId>>>;

/// Makes sandboxes with a Docker engine.
#[derive(Debug, Clone)]
pub struct DockerBackend {
    docker: Docker,
    facts: EngineFacts,
    orphans: Orphans,
}

impl DockerBackend {
    /// Connects to the engine that `DOCKER_HOST` names, or to the default socket, and agrees on an API version.
    pub async fn connect() -> Result<Self, SandboxError> {
        let address =
            std::env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".to_owned());
        let no_engine = |source: bollard::errors::Error| SandboxError::NoEngine {
            address: address.clone(),
            hint: "install Docker or start it (`sudo systemctl start docker`), let your user use it \
                   (`sudo usermod -aG docker $USER`), or set DOCKER_HOST"
                .to_owned(),
            source: Some(Box::new(source)),
        };
        let docker = Docker::connect_with_defaults().map_err(no_engine)?;
        let docker = docker.negotiate_version().await.map_err(no_engine)?;
        let facts = read_facts(&docker).await.map_err(no_engine)?;
        Ok(Self { docker, facts, orphans: Orphans::default() })
    }

    /// The engine's client, for the image builder of this crate.
    pub(crate) fn client(&self) -> &Docker {
        &self.docker
    }
}

async fn read_facts(docker: &Docker) -> Result<EngineFacts, bollard::errors::Error> {
    let info = docker.info().await?;
    let version = docker.version().await?;
    let storage_driver = info.driver.unwrap_or_default();
    let on_xfs =
        info.driver_status.unwrap_or_default().iter().any(
            |pair| matches!(pair.as_slice(), [key, value] if key == "Backing Filesystem" && value == "xfs"),
        );
    Ok(EngineFacts {
        version: format!("docker {}", info.server_version.unwrap_or_default()),
        api_version: version.api_version.unwrap_or_default(),
        // On overlay2 a quota needs xfs mounted with pquota, which the engine does not tell: there the first
        // create with a quota is the test, see `container::create`.
        disk_quota: QUOTA_DRIVERS.contains(&storage_driver.as_str())
            || (storage_driver == "overlay2" && on_xfs),
        storage_driver,
        cgroup_version: match info.cgroup_version {
            Some(SystemInfoCgroupVersionEnum::_2) => 2,
            _ => 1,
        },
        cpus: info.ncpu.and_then(|n| u64::try_from(n).ok()).unwrap_or(1),
        memory_bytes: info.mem_total.and_then(|n| u64::try_from(n).ok()).unwrap_or(0),
    })
}

#[async_trait]
impl Backend for DockerBackend {
    fn name(&self) -> &'static str {
        "docker"
    }

    async fn facts(&self) -> Result<EngineFacts, SandboxError> {
        Ok(self.facts.clone())
    }

    async fn create(&self, spec: &SandboxSpec) -> Result<Box<dyn Sandbox>, SandboxError> {
        let sandbox = sandbox::DockerSandbox::create(&self.docker, &self.facts, spec, &self.orphans).await?;
        Ok(Box::new(sandbox))
    }

    async fn list(&self, labels: &BTreeMap<String, String>) -> Result<Vec<SandboxSummary>, SandboxError> {
        let wanted: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let filters = HashMap::from([("label".to_owned(), wanted)]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let found = self.docker.list_containers(Some(options)).await.map_err(engine("list"))?;
        Ok(found
            .into_iter()
            .filter_map(|container| {
                let labels = container.labels.unwrap_or_default().into_iter().collect();
                Some(SandboxSummary { id: SandboxId(container.id?), labels })
            })
            .collect())
    }

    async fn remove(&self, id: &SandboxId) -> Result<(), SandboxError> {
        remove(&self.docker, id).await
    }

    async fn sweep(&self) -> Result<(), SandboxError> {
        let orphans = std::mem::take(&mut *self.orphans.lock().unwrap_or_else(PoisonError::into_inner));
        for id in orphans {
            remove(&self.docker, &id).await?;
        }
        Ok(())
    }
}

/// Removes a container with its anonymous volumes; one that is gone or going is no error.
pub(crate) async fn remove(docker: &Docker, id: &SandboxId) -> Result<(), SandboxError> {
    let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
    match docker.remove_container(&id.0, Some(options)).await {
        Ok(()) => Ok(()),
        Err(bollard::errors::Error::DockerResponseServerError { status_code: 404 | 409, .. }) => Ok(()),
        Err(source) => Err(engine("remove")(source)),
    }
}

/// Wraps an engine's refusal.
pub(crate) fn engine(verb: &'static str) -> impl Fn(bollard::errors::Error) -> SandboxError {
    move |source| SandboxError::Engine { verb, source: Box::new(source) }
}
