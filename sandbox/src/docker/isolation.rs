//! A container's creation: the one place where isolation is decided.

use std::collections::HashMap;

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{
    ContainerCreateBody, HostConfig, HostConfigLogConfig, Mount as EngineMount, MountType, ResourcesUlimits,
};
use serde_json::json;

use crate::backend::{EngineFacts, SandboxError};
use crate::docker::engine;
use crate::spec::{SandboxId, SandboxSpec, User};

/// Who PID 1 is in an agent's sandbox: nobody that a command of the sandbox could signal or be.
const KEEPER: &str = "65533:65533";

/// What a grader may do beyond an ordinary user: read its private files whoever owns them on the host, become
/// the unprivileged user that runs submitted code, and kill that user's processes.
const GRADER_CAPABILITIES: [&str; 4] = ["SETUID", "SETGID", "KILL", "DAC_OVERRIDE"];

/// A container that runs, and how it is isolated in fact.
pub(crate) struct Started {
    pub(crate) id: SandboxId,
    pub(crate) isolation: serde_json::Value,
    pub(crate) watch_disk: bool,
}

impl User {
    /// The `user` of PID 1. The engine gives an exec the capabilities of the container only when the container's own
    /// user is root, so a grader's must be.
    fn keeper(self) -> &'static str {
        match self {
            Self::Agent => KEEPER,
            Self::Grader => "0:0",
        }
    }

    /// The `user` of the engine's exec.
    pub(crate) fn as_exec_user(self) -> &'static str {
        match self {
            Self::Agent => "1000:1000",
            Self::Grader => "0:0",
        }
    }
}

/// Creates and starts a container. Where the engine refuses a disk quota that its driver promised, the container
/// is made without and its size is watched.
pub(crate) async fn create(
    docker: &Docker,
    facts: &EngineFacts,
    runtime: Option<&str>,
    spec: &SandboxSpec,
) -> Result<Started, SandboxError> {
    let mut spec = spec.clone();
    #[expect(clippy::cast_precision_loss, reason = "nobody has 2^52 cores")]
    let cores = facts.cpus.max(1) as f64;
    // The engine refuses more cores than the host has; what is given in fact is in the journal.
    spec.limits.cpus = spec.limits.cpus.min(cores);
    let spec = &spec;
    let mut quota = facts.disk_quota && !spec.read_only_root;
    let created = match docker.create_container(None, body(spec, runtime, quota)).await {
        Err(Error::DockerResponseServerError { status_code: 400 | 500, message })
            if quota && message.contains("storage-opt") =>
        {
            quota = false;
            docker.create_container(None, body(spec, runtime, quota)).await
        }
        other => other,
    };
    let id = SandboxId(created.map_err(engine("create"))?.id);
    if let Err(source) = docker.start_container(&id.0, None).await {
        // The start's error is the one to report, whatever the removal says.
        let _ = super::remove(docker, &id).await;
        return Err(engine("start")(source));
    }
    let disk = match (spec.read_only_root, quota) {
        (true, _) => "read-only root",
        (false, true) => "quota",
        (false, false) => "watched",
    };
    let isolation = json!({
        "network": "none", "user": spec.user, "no_new_privileges": true, "seccomp": "default",
        "capabilities": capabilities(spec.user), "limits": spec.limits, "disk": disk,
        "runtime": runtime, "engine": facts.version, "storage_driver": facts.storage_driver,
    });
    Ok(Started { id, isolation, watch_disk: disk == "watched" })
}

fn capabilities(user: User) -> Vec<String> {
    match user {
        User::Agent => Vec::new(),
        User::Grader => GRADER_CAPABILITIES.map(str::to_owned).to_vec(),
    }
}

fn body(spec: &SandboxSpec, runtime: Option<&str>, quota: bool) -> ContainerCreateBody {
    let mut env: Vec<String> = spec.env.iter().map(|(key, value)| format!("{key}={value}")).collect();
    env.push("MLGYM=1".to_owned());
    ContainerCreateBody {
        image: Some(spec.image.clone()),
        user: Some(spec.user.keeper().to_owned()),
        entrypoint: Some(vec!["/bin/sleep".to_owned(), "infinity".to_owned()]),
        cmd: Some(Vec::new()),
        env: Some(env),
        working_dir: Some(spec.workdir.clone()),
        hostname: Some("sandbox".to_owned()),
        network_disabled: Some(true),
        labels: Some(spec.labels.clone().into_iter().collect()),
        host_config: Some(host_config(spec, runtime, quota)),
        ..ContainerCreateBody::default()
    }
}

fn host_config(spec: &SandboxSpec, runtime: Option<&str>, quota: bool) -> HostConfig {
    let limits = &spec.limits;
    let memory = i64::try_from(limits.memory_bytes).unwrap_or(i64::MAX);
    let storage = i64::try_from(limits.storage_bytes).unwrap_or(i64::MAX);
    let ulimit = |name: &str, value: i64| ResourcesUlimits {
        name: Some(name.to_owned()),
        soft: Some(value),
        hard: Some(value),
    };
    HostConfig {
        network_mode: Some("none".to_owned()),
        cap_drop: Some(vec!["ALL".to_owned()]),
        cap_add: Some(capabilities(spec.user)),
        security_opt: Some(vec!["no-new-privileges".to_owned()]),
        privileged: Some(false),
        ipc_mode: Some("private".to_owned()),
        init: Some(true),
        pids_limit: Some(i64::from(limits.pids)),
        memory: Some(memory),
        memory_swap: Some(memory),
        #[expect(clippy::cast_possible_truncation, reason = "a number of cores times 1e9 fits")]
        nano_cpus: Some((limits.cpus * 1e9) as i64),
        ulimits: Some(vec![ulimit("nofile", 4096), ulimit("fsize", storage), ulimit("core", 0)]),
        shm_size: Some(memory / 4),
        readonly_rootfs: Some(spec.read_only_root),
        mounts: Some(spec.mounts.iter().map(mount).collect()),
        tmpfs: Some(spec.tmpfs.iter().map(|(path, bytes)| (path.clone(), tmpfs_options(*bytes))).collect()),
        storage_opt: quota.then(|| HashMap::from([("size".to_owned(), limits.storage_bytes.to_string())])),
        runtime: runtime.map(str::to_owned),
        log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
        ..HostConfig::default()
    }
}

fn tmpfs_options(bytes: u64) -> String {
    format!("rw,nosuid,nodev,size={bytes},mode=1777")
}

fn mount(mount: &crate::spec::Mount) -> EngineMount {
    EngineMount {
        typ: Some(MountType::BIND),
        source: Some(mount.source.display().to_string()),
        target: Some(mount.target.clone()),
        read_only: Some(true),
        ..EngineMount::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(user: User) -> SandboxSpec {
        SandboxSpec {
            image: "image".into(),
            labels: [("mlgym.run".to_owned(), "r".to_owned())].into(),
            user,
            workdir: "/workspace".into(),
            env: [].into(),
            limits: crate::spec::Limits::default(),
            mounts: vec![crate::spec::Mount { source: "/data".into(), target: "/data".into() }],
            read_only_root: false,
            tmpfs: [].into(),
        }
    }

    #[test]
    fn an_agent_gets_no_capability_no_network_and_no_way_to_more() {
        let body = body(&spec(User::Agent), None, false);
        let host = body.host_config.unwrap();
        assert_eq!(host.network_mode.as_deref(), Some("none"));
        assert_eq!(host.cap_drop.unwrap(), ["ALL"]);
        assert!(host.cap_add.unwrap().is_empty());
        assert_eq!(host.security_opt.unwrap(), ["no-new-privileges"]);
        assert_eq!(host.privileged, Some(false));
        assert_eq!(host.memory, host.memory_swap);
        assert!(host.mounts.unwrap().iter().all(|mount| mount.read_only == Some(true)));
        assert_eq!(body.user.as_deref(), Some(KEEPER));
    }

    #[test]
    fn only_a_grader_gets_capabilities_and_only_four() {
        let host = body(&spec(User::Grader), None, false).host_config.unwrap();
        assert_eq!(host.cap_add.unwrap(), GRADER_CAPABILITIES);
    }
}
