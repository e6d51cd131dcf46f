//! What a sandbox without an engine may not ask of the kernel: what an engine's default filter refuses, too.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, sock_filter,
};

use crate::backend::SandboxError;

/// Calls that change the machine, reach into other namespaces, or have been ways out of sandboxes.
const REFUSED: [i64; 41] = [
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kcmp,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_lookup_dcookie,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_name_to_handle_at,
    libc::SYS_nfsservctl,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_pivot_root,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
];

/// The flags of `clone` that make namespaces.
const NAMESPACES: [i32; 8] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    0x80, // CLONE_NEWTIME
];

/// The two filters, as bubblewrap reads them: the second answers `ENOSYS` to the one call whose flags a filter cannot
/// see, so that programs take the older call instead.
pub(crate) fn filters() -> Result<[Vec<u8>; 2], SandboxError> {
    let failed = |error: seccompiler::BackendError| SandboxError::Refused {
        what: "a system call filter".to_owned(),
        reason: error.to_string(),
    };
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = REFUSED.map(|call| (call, Vec::new())).into();
    let with = |flag: i32| {
        let flag = u64::from(flag.unsigned_abs());
        let is_set = SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(flag), flag)?;
        SeccompRule::new(vec![is_set])
    };
    let clone = NAMESPACES.iter().map(|flag| with(*flag)).collect::<Result<Vec<_>, _>>().map_err(failed)?;
    rules.insert(libc::SYS_clone, clone);
    let refusals = compile(rules, libc::EPERM).map_err(failed)?;
    let unknown = compile([(libc::SYS_clone3, Vec::new())].into(), libc::ENOSYS).map_err(failed)?;
    Ok([bytes(&guarded(refusals)), bytes(&unknown)])
}

fn compile(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    errno: i32,
) -> Result<BpfProgram, seccompiler::BackendError> {
    let refusal = SeccompAction::Errno(errno.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refusal, arch()?)?;
    filter.try_into()
}

fn arch() -> Result<TargetArch, seccompiler::BackendError> {
    std::env::consts::ARCH.try_into()
}

/// Refuses the second numbering that x86-64 has for all calls, by which a list of numbers could be passed by.
fn guarded(program: BpfProgram) -> BpfProgram {
    if std::env::consts::ARCH != "x86_64" {
        return program;
    }
    const LOAD: u16 = 0x20;
    const JUMP_IF_AT_LEAST: u16 = 0x35;
    const RETURN: u16 = 0x06;
    const X32: u32 = 0x4000_0000;
    let refusal = 0x0005_0000 | libc::EPERM.unsigned_abs();
    let guard = [
        sock_filter { code: LOAD, jt: 0, jf: 0, k: 0 },
        sock_filter { code: JUMP_IF_AT_LEAST, jt: 0, jf: 1, k: X32 },
        sock_filter { code: RETURN, jt: 0, jf: 0, k: refusal },
    ];
    guard.into_iter().chain(program).collect()
}

/// The kernel's layout of a program.
fn bytes(program: &[sock_filter]) -> Vec<u8> {
    let one = |filter: &sock_filter| {
        let [c0, c1] = filter.code.to_ne_bytes();
        let [k0, k1, k2, k3] = filter.k.to_ne_bytes();
        [c0, c1, filter.jt, filter.jf, k0, k1, k2, k3]
    };
    program.iter().flat_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_filters_compile_to_whole_instructions() {
        for filter in filters().unwrap() {
            assert!(!filter.is_empty() && filter.len().is_multiple_of(8));
        }
    }
}
