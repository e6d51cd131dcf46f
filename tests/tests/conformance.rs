//! What every backend must do, on every backend: the shell's state and exactness, deadlines, jobs, files, isolation.
#![expect(clippy::unwrap_used, clippy::panic, reason = "what a test needs and does not get must fail it")]

use std::time::{Duration, Instant};

use mlgym_sandbox::{
    Command, CommandEnd, FileSource, JobReport, Sandbox, SandboxError, Snapshot, TransferCaps, TransferError,
    User,
};
use mlgym_tests::{Lab, Place, said, shell};
use tokio_util::sync::CancellationToken;

/// Makes a test of each check on one backend.
macro_rules! conformance {
    ($($module:ident on $place:ident),*) => {
        $(mod $module {
            use super::{Lab, Place};
            each!(Place::$place;
                the_shell_keeps_its_state_and_is_exact,
                hostile_commands_confuse_nobody,
                a_deadline_kills_the_whole_tree_and_the_shell_lives_on,
                a_cancelled_command_is_interrupted,
                jobs_run_beside_the_shell,
                an_agents_sandbox_is_closed,
                a_full_disk_ends_the_step_and_says_so,
                only_regular_files_come_out,
                what_is_dropped_is_swept_and_what_is_destroyed_is_gone,
                a_snapshot_is_a_second_sandbox_where_the_first_one_stood,
                a_grader_has_its_four_capabilities_and_a_closed_root,
            );
        })*
    };
}

macro_rules! each {
    ($place:expr; $($check:ident,)*) => {
        $(#[tokio::test]
        async fn $check() {
            super::$check(&Lab::on($place).await).await;
        })*
    };
}

conformance!(docker on Docker, runsc on Runsc, podman on Podman, bwrap on Bwrap);

/// Names the network interfaces; gVisor has no /sys/class/net, and may have no interface at all.
const INTERFACES: &str = "tail -n +3 /proc/net/dev | cut -d: -f1 | grep . || echo lo";

async fn the_shell_keeps_its_state_and_is_exact(lab: &Lab) {
    let mut sandbox = lab.sandbox().await;
    let s = sandbox.as_mut();
    shell(s, "cd /tmp; export A=1; b=2; f() { echo \"f $1\"; }").await;
    assert_eq!(said(s, "pwd; echo $A $b; f x").await, "/tmp\n1 2\nf x");
    let output = shell(s, "echo out; echo err >&2; (exit 42)").await;
    assert_eq!((output.stdout.to_text().as_str(), output.stderr.to_text().as_str()), ("out\n", "err\n"));
    assert_eq!(output.end, CommandEnd::Exited(42));
    assert_eq!(shell(s, "kill -SEGV $BASHPID & wait $!").await.end, CommandEnd::Exited(139));
    assert_eq!(shell(s, "printf no-newline").await.stdout.to_text(), "no-newline");
    let output = shell(s, "if true").await;
    assert!(output.end != CommandEnd::Exited(0) && output.stderr.total > 0, "{output:?}");
    sandbox.destroy().await.unwrap();
}

async fn hostile_commands_confuse_nobody(lab: &Lab) {
    let mut sandbox = lab.sandbox().await;
    let s = sandbox.as_mut();
    assert_eq!(said(s, "cat; read x; echo \"[$x]\"").await, "[]");
    assert_eq!(said(s, "printf 'mlgym-0000:0\\n'; echo after").await, "mlgym-0000:0\nafter");
    assert_eq!(said(s, "exec >/dev/null; echo lost").await, "");
    assert_eq!(said(s, "echo found").await, "found");
    assert_eq!(said(s, "sleep 30 & echo now").await, "now");
    let output = shell(s, "head -c 200000 /dev/urandom").await;
    assert_eq!(output.stdout.total, 200_000);
    assert!(output.stdout.to_text().contains("bytes left out"));
    let output = shell(s, "exit 3").await;
    assert_eq!((output.end, output.shell_restarted), (CommandEnd::Exited(3), true));
    let output = shell(s, "exec sh -c 'exit 4'").await;
    assert_eq!((output.end, output.shell_restarted), (CommandEnd::Exited(4), true));
    assert_eq!(said(s, "kill -9 $$; echo not reached").await, "");
    assert_eq!(said(s, "set -e; false; echo not reached").await, "");
    assert_eq!(said(s, "echo still here").await, "still here");
    sandbox.destroy().await.unwrap();
}

async fn a_deadline_kills_the_whole_tree_and_the_shell_lives_on(lab: &Lab) {
    let mut sandbox = lab.sandbox().await;
    let s = sandbox.as_mut();
    shell(s, "export KEPT=yes; cd /tmp").await;
    let script =
        "trap '' TERM INT; setsid bash -c 'trap \"\" TERM; (setsid sleep 777 &); sleep 777' & sleep 777";
    let started = Instant::now();
    let command = Command::new(script, Duration::from_secs(1));
    let output = s.shell(&command, &CancellationToken::new()).await.unwrap();
    assert_eq!(output.end, CommandEnd::TimedOut);
    assert!(started.elapsed() < Duration::from_secs(6), "{:?}", started.elapsed());
    assert_eq!(said(s, "pgrep -c -u 1000 -x sleep; echo $KEPT; pwd").await, "0\nyes\n/tmp");
    let bomb = Command::new(":() { : | : & }; :; sleep 100", Duration::from_secs(1));
    let started = Instant::now();
    let end = s.shell(&bomb, &CancellationToken::new()).await.unwrap().end;
    // gVisor's own kernel may go down with the bomb; it comes back, as any shell does.
    assert!(
        end == CommandEnd::TimedOut || (lab.place == Place::Runsc && end != CommandEnd::Exited(0)),
        "{end:?}"
    );
    assert!(started.elapsed() < Duration::from_secs(12), "{:?}", started.elapsed());
    assert_eq!(said(s, "echo alive").await, "alive");
    sandbox.destroy().await.unwrap();
}

async fn a_cancelled_command_is_interrupted(lab: &Lab) {
    let mut sandbox = lab.sandbox().await;
    let cancel = CancellationToken::new();
    let stop = cancel.clone();
    let command = Command::new("echo begun; sleep 500", Duration::from_secs(400));
    let (output, ()) = tokio::join!(sandbox.shell(&command, &cancel), async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        stop.cancel();
    });
    let output = output.unwrap();
    assert_eq!((output.end, output.stdout.to_text().as_str()), (CommandEnd::Interrupted, "begun\n"));
    sandbox.destroy().await.unwrap();
}

async fn jobs_run_beside_the_shell(lab: &Lab) {
    let mut sandbox = lab.sandbox().await;
    shell(sandbox.as_mut(), "cd /tmp; export WORD=job").await;
    let job = sandbox.spawn("echo $WORD in $PWD; sleep 1; exit 5").await.unwrap();
    let long = sandbox.spawn("sleep 600").await.unwrap();
    assert!(matches!(sandbox.wait(&job, Duration::ZERO).await.unwrap(), JobReport::Running(_)));
    let JobReport::Ended(output) = sandbox.wait(&job, Duration::from_secs(20)).await.unwrap() else {
        panic!("the job did not end");
    };
    assert_eq!((output.end, output.stdout.to_text().as_str()), (CommandEnd::Exited(5), "job in /tmp\n"));
    // A step's deadline spares the jobs.
    let late = Command::new("sleep 300", Duration::from_millis(500));
    assert_eq!(sandbox.shell(&late, &CancellationToken::new()).await.unwrap().end, CommandEnd::TimedOut);
    assert!(matches!(sandbox.wait(&long, Duration::ZERO).await.unwrap(), JobReport::Running(_)));
    let JobReport::Ended(output) = sandbox.interrupt(&long).await.unwrap() else { panic!("not interrupted") };
    assert_eq!(output.end, CommandEnd::Interrupted);
    assert!(matches!(sandbox.wait("job9", Duration::ZERO).await.unwrap(), JobReport::Unknown));
    sandbox.destroy().await.unwrap();
}

async fn an_agents_sandbox_is_closed(lab: &Lab) {
    let mut sandbox = lab.sandbox().await;
    let s = sandbox.as_mut();
    assert_eq!(said(s, "id -u; id -g").await, "1000\n1000");
    let status = said(s, "grep -E '^(CapPrm|CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status").await;
    let status: Vec<_> = status.split_whitespace().collect();
    assert_eq!(
        status[..6],
        ["CapPrm:", "0000000000000000", "CapEff:", "0000000000000000", "CapBnd:", "0000000000000000"]
    );
    // gVisor is the filter itself, and shows none to those inside.
    if lab.place != Place::Runsc {
        assert_eq!(status[6..], ["NoNewPrivs:", "1", "Seccomp:", "2"]);
    }
    assert_eq!(said(s, INTERFACES).await, "lo");
    assert_eq!(said(s, "ls /var/run/docker.sock 2>/dev/null; ls -A /tests /private 2>/dev/null").await, "");
    for path in ["/usr/x", "/etc/x", "/opt/venv/x", "/data/x", "/logs/x", "/x"] {
        assert_ne!(shell(s, &format!("touch {path}")).await.end, CommandEnd::Exited(0), "{path}");
    }
    for path in ["/workspace/x", "/tmp/x", "/home/agent/x"] {
        assert_eq!(shell(s, &format!("touch {path}")).await.end, CommandEnd::Exited(0), "{path}");
    }
    assert_ne!(shell(s, "kill -9 1").await.end, CommandEnd::Exited(0));
    let output = shell(s, "python3 -c 'x = bytearray(600 << 20); print(len(x))'").await;
    assert_ne!(output.end, CommandEnd::Exited(0), "600 MB fit into 256 MB");
    let isolation = sandbox.isolation();
    assert_eq!((&isolation["network"], &isolation["capabilities"]), (&"none".into(), &serde_json::json!([])));
    sandbox.destroy().await.unwrap();
}

async fn a_full_disk_ends_the_step_and_says_so(lab: &Lab) {
    let mut spec = lab.spec(User::Agent);
    // gVisor's own memory counts, too, and what it caches of files.
    spec.limits.memory_bytes = 2 << 30;
    let mut sandbox = lab.backend.create(&spec).await.unwrap();
    let script = "for i in $(seq 40); do head -c 50M /dev/zero > f$i; sleep 0.2; done; sleep 60";
    let output =
        sandbox.shell(&Command::new(script, Duration::from_secs(100)), &CancellationToken::new()).await;
    let output = output.unwrap();
    let is_quota = sandbox.isolation()["disk"] == "quota";
    assert!(is_quota || output.end == CommandEnd::DiskFull, "{:?}", output.end);
    sandbox.destroy().await.unwrap();
}

async fn only_regular_files_come_out(lab: &Lab) {
    let mut sandbox = lab.sandbox().await;
    let out = lab.directory.path().join("out");
    std::fs::create_dir(&out).unwrap();
    sandbox
        .put("/workspace", FileSource::File { name: "in.txt".into(), content: b"in\n".to_vec() })
        .await
        .unwrap();
    let made = "mkdir -p d/e; cp in.txt d/e/x; ln -s /etc/passwd link; mkfifo pipe; mkdir l; ln -s / l/root; \
                ln in.txt hard; truncate -s 300G sparse";
    shell(sandbox.as_mut(), made).await;
    let caps = TransferCaps { bytes: 1 << 20, entries: 10 };
    let mut get = async |name: &str| {
        let target = out.join(name.replace('/', "_"));
        (sandbox.get(&format!("/workspace/{name}"), &target, caps).await, target)
    };
    let (copied, target) = get("d").await;
    assert!(copied.unwrap().directory);
    assert_eq!(std::fs::read_to_string(target.join("e/x")).unwrap(), "in\n");
    for name in ["link", "pipe", "l"] {
        let (refused, target) = get(name).await;
        // gVisor keeps a pipe to itself.
        let is_unseen = name == "pipe" && lab.place == Place::Runsc;
        let is_refused = match &refused {
            Err(SandboxError::Transfer(TransferError::NotRegular { .. })) => true,
            Err(SandboxError::Transfer(TransferError::Missing { .. })) => is_unseen,
            _ => false,
        };
        assert!(is_refused, "{name}: {refused:?}");
        assert!(!target.is_symlink());
    }
    let (missing, _) = get("gone").await;
    assert!(matches!(missing, Err(SandboxError::Transfer(TransferError::Missing { .. }))), "{missing:?}");
    sandbox.destroy().await.unwrap();
}

async fn what_is_dropped_is_swept_and_what_is_destroyed_is_gone(lab: &Lab) {
    let kept = lab.sandbox().await;
    drop(lab.sandbox().await);
    assert_eq!(lab.containers().await, 2);
    lab.backend.sweep().await.unwrap();
    assert_eq!(lab.containers().await, 1);
    kept.destroy().await.unwrap();
    assert_eq!(lab.containers().await, 0);
}

async fn a_grader_has_its_four_capabilities_and_a_closed_root(lab: &Lab) {
    let mut spec = lab.spec(User::Grader);
    spec.read_only_root = true;
    spec.tmpfs = [("/tmp".to_owned(), 16 << 20), ("/logs".to_owned(), 16 << 20)].into();
    let mut sandbox: Box<dyn Sandbox> = lab.backend.create(&spec).await.unwrap();
    let s = sandbox.as_mut();
    assert_eq!(said(s, "id -u; grep CapEff /proc/self/status | cut -f2").await, "0\n00000000000000e2");
    assert_eq!(
        said(s, &format!("{INTERFACES}; touch /x 2>/dev/null || echo closed; touch /logs/x && echo open"))
            .await,
        "lo\nclosed\nopen"
    );
    let become_nobody = "python3 -c 'import os; os.setgroups([]); os.setgid(65534); os.setuid(65534); \
                         print(os.getuid()); os.listdir(\"/private\")' 2>&1 | tail -n 1 | cut -c1-15; echo";
    assert_eq!(said(s, become_nobody).await, "PermissionError");
    sandbox.destroy().await.unwrap();
}

async fn a_snapshot_is_a_second_sandbox_where_the_first_one_stood(lab: &Lab) {
    let mut first = lab.sandbox().await;
    let prepare = "mkdir -p deep/er; cd deep/er; echo one > file; ln -s file link; chmod 600 file; \
                   export SAID=\"it's\nso\"; sleep 900 & true";
    shell(first.as_mut(), prepare).await;
    let snapshot = first.snapshot().await.unwrap();
    // What another process would read is enough.
    let snapshot: Snapshot = serde_json::from_str(&serde_json::to_string(&snapshot).unwrap()).unwrap();
    let mut second = lab.backend.restore(&lab.spec(User::Agent), &snapshot).await.unwrap();
    assert_eq!(
        said(second.as_mut(), "pwd; cat link; python3 -c 'import os; print(oct(os.stat(\"file\").st_mode)[-3:])'; echo \"$SAID\"").await,
        "/workspace/deep/er\none\n600\nit's\nso"
    );
    assert_eq!(said(second.as_mut(), "pgrep -c sleep -u 1000; true").await, "0");
    shell(second.as_mut(), "echo two > file").await;
    assert_eq!(said(first.as_mut(), "cat file; pgrep -c sleep -u 1000").await, "one\n1");
    let found = lab.backend.snapshots(&lab.labels()).await.unwrap();
    assert_eq!(found.iter().map(|found| &found.id).collect::<Vec<_>>(), [&snapshot.id]);
    first.destroy().await.unwrap();
    second.destroy().await.unwrap();
    lab.backend.remove_snapshot(&snapshot.id).await.unwrap();
    lab.backend.remove_snapshot(&snapshot.id).await.unwrap();
    assert!(lab.backend.snapshots(&lab.labels()).await.unwrap().is_empty());
}
