//! Many steps with faults among them: none is wedged, none answers wrongly, nothing is left.

use std::path::Path;

use mlgym_sandbox::User;
use mlgym_sandbox::bench::{Cutter, Fault, soak};
use mlgym_sandbox::docker::{DockerBackend, EngineOptions};
use mlgym_tests::{Lab, Place};

#[tokio::test(flavor = "multi_thread")]
async fn faults_cost_no_step_but_their_own_on_bwrap() {
    let lab = Lab::on(Place::Bwrap).await;
    let soak = soak(lab.backend.as_ref(), &lab.spec(User::Agent), 2500, None).await.unwrap();
    assert!(soak.is_clean() && soak.errors == 0, "{soak:?}");
    assert_eq!(soak.faults[&Fault::FullDisk], 1);
    assert_eq!(lab.containers().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_and_cut_connections_cost_no_step_but_their_own_on_docker() {
    let lab = Lab::on(Place::Docker).await;
    let address = std::env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".to_owned());
    let cutter = Cutter::before(Path::new(address.strip_prefix("unix://").unwrap())).unwrap();
    let backend = DockerBackend::connect_at(&cutter.address(), EngineOptions::default()).await.unwrap();
    let soak = soak(&backend, &lab.spec(User::Agent), 2500, Some(&cutter)).await.unwrap();
    assert!(soak.is_clean() && soak.errors == 0, "{soak:?}");
    assert_eq!(soak.faults[&Fault::CutConnection], 5);
    assert_eq!(lab.containers().await, 0);
}
