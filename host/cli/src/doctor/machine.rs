//! Checks of the machine and of the limits of the process.

use crate::common::readable;
use crate::doctor::finding::Finding;
use crate::sandbox::{SandboxMode, SandboxSupport};
use millpond::ledger::process;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// Checks the machine. `memory_bytes` is the memory limit of the server, and `folder` its folder.
pub(crate) fn check(memory_bytes: usize, folder: Option<&Path>) -> Vec<Finding> {
    let mut findings = vec![open_files(), memory(memory_bytes as u64)];
    findings.extend(address_space());
    findings.extend(sysctls());
    findings.extend(user());
    findings.push(clock(SystemTime::now(), folder.and_then(newest_file)));
    findings
}

/// The server raises its soft limit to the hard limit.
fn open_files() -> Finding {
    const CHECK: &str = "open files";
    #[cfg(unix)]
    {
        use rustix::process::{Resource, getrlimit};
        /// A connection takes one file, and its response usually another.
        const USUAL: u64 = 1024;
        const MANY: u64 = 20_000;
        let Some(files) = getrlimit(Resource::Nofile).maximum else {
            return Finding::ok(CHECK, "no limit");
        };
        let message = format!(
            "the hard limit is {files}, for {} connections or less",
            files / 2
        );
        let remedy = "raise it: LimitNOFILE=65536 in the unit of systemd, --ulimit nofile=65536 of a container";
        match files {
            0..USUAL => Finding::fail(CHECK, message, remedy),
            USUAL..MANY => Finding::warn(CHECK, message, remedy),
            _ => Finding::ok(CHECK, message),
        }
    }
    #[cfg(not(unix))]
    Finding::ok(CHECK, "this system has no limit")
}

fn memory(limit_bytes: u64) -> Finding {
    const CHECK: &str = "memory";
    let Some(available_bytes) = process::memory_limit_bytes() else {
        return Finding::ok(CHECK, format!("the limit is {}", readable(limit_bytes)));
    };
    let machine = fs::read_to_string("/proc/meminfo").ok();
    let machine = machine.and_then(|text| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:"))?;
        line.split_ascii_whitespace().next()?.parse::<u64>().ok()
    });
    let of = match machine {
        Some(kibibytes) if available_bytes < kibibytes * 1024 => "control group",
        _ => "machine",
    };
    let message = format!(
        "--memory-limit {} of {}, the memory of the {of}",
        readable(limit_bytes),
        readable(available_bytes)
    );
    // The kernel counts the pages of served files in the same control group.
    if limit_bytes > available_bytes {
        let remedy = format!(
            "lower --memory-limit below {}",
            readable(available_bytes * 4 / 5)
        );
        Finding::fail(CHECK, message, remedy)
    } else if limit_bytes > available_bytes / 5 * 4 {
        let remedy = "leave a fifth to the page cache and to other programs, or raise MemoryMax";
        Finding::warn(CHECK, message, remedy)
    } else {
        Finding::ok(CHECK, message)
    }
}

/// wasmtime reserves address space for each instance, and uses little of it.
fn address_space() -> Option<Finding> {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, getrlimit};
        let bytes = getrlimit(Resource::As).current?;
        Some(Finding::fail(
            "address space",
            format!(
                "it is limited to {}, and the instance pool reserves terabytes",
                readable(bytes)
            ),
            "remove the limit: ulimit -v unlimited, LimitAS=infinity; --memory-limit bounds the memory",
        ))
    }
    #[cfg(not(unix))]
    None
}

/// Kernel parameters with the value below which the server is slower, and the reason.
const SYSCTLS: [(&str, u64, &str); 2] = [
    (
        "net.core.somaxconn",
        1024,
        "bursts of new connections are refused beyond it",
    ),
    (
        "net.core.wmem_max",
        200 * 1024,
        "fast downloads get a smaller send buffer",
    ),
];

/// Checks what the kernel has of the sandbox that the options ask for.
pub(crate) fn sandbox(mode: SandboxMode, support: SandboxSupport) -> Finding {
    const CHECK: &str = "sandbox";
    const REMEDY: &str =
        "use Linux 6.12 or later with Landlock (lsm=landlock,… on the kernel's command line)";
    let message = support.to_string();
    match (mode, support) {
        (SandboxMode::Off, _) => Finding::warn(CHECK, "--sandbox off", "remove --sandbox off"),
        (_, SandboxSupport::Whole) => Finding::ok(CHECK, message),
        (SandboxMode::Auto, _) => Finding::warn(CHECK, message, REMEDY),
        (SandboxMode::On, _) => {
            let remedy = format!("{REMEDY}, or --sandbox auto");
            Finding::fail(CHECK, message, remedy)
        }
    }
}

fn sysctls() -> Vec<Finding> {
    let read = |name: &str| {
        let path = Path::new("/proc/sys").join(name.replace('.', "/"));
        fs::read_to_string(path).ok()?.trim().parse::<u64>().ok()
    };
    let findings = SYSCTLS.iter().filter_map(|(name, least, why)| {
        // A container may not see the parameter.
        let value = read(name)?;
        Some(sysctl(name, value, *least, why))
    });
    findings.collect()
}

fn sysctl(name: &str, value: u64, least: u64, why: &str) -> Finding {
    const CHECK: &str = "kernel";
    let message = format!("{name} is {value}");
    if value < least {
        let remedy = format!("sysctl -w {name}={least}");
        return Finding::warn(CHECK, format!("{message}: {why}"), remedy);
    }
    Finding::ok(CHECK, message)
}

fn user() -> Option<Finding> {
    #[cfg(unix)]
    {
        const CHECK: &str = "user";
        let id = rustix::process::geteuid();
        Some(if id.is_root() {
            let remedy =
                "run it as a user that may only read the folder (User= in the unit of systemd)";
            Finding::warn(CHECK, "the program runs as root", remedy)
        } else {
            Finding::ok(CHECK, format!("the program runs as user {}", id.as_raw()))
        })
    }
    #[cfg(not(unix))]
    None
}

/// Beginning of 2026, before the first build of this version.
const EARLIEST: Duration = Duration::from_secs(1_767_225_600);

/// Difference between two clocks that harms nobody.
const TOLERANCE: Duration = Duration::from_secs(60);

/// Signed URLs, certificates and caches rely on the clock.
fn clock(now: SystemTime, newest: Option<SystemTime>) -> Finding {
    const CHECK: &str = "clock";
    const REMEDY: &str = "synchronise the clock: timedatectl set-ntp true";
    let shown = humantime::format_rfc3339_seconds(now);
    if now < SystemTime::UNIX_EPOCH + EARLIEST {
        return Finding::fail(
            CHECK,
            format!("it is {shown}, before this program was built"),
            REMEDY,
        );
    }
    match newest {
        Some(newest) if newest > now + TOLERANCE => {
            let newest = humantime::format_rfc3339_seconds(newest);
            let message = format!("it is {shown}, and a file of the folder is of {newest}");
            Finding::warn(CHECK, message, REMEDY)
        }
        _ => Finding::ok(CHECK, format!("it is {shown}")),
    }
}

/// Time of the newest file among the first ones of a folder.
fn newest_file(folder: &Path) -> Option<SystemTime> {
    const FILES: usize = 1000;
    let entries = fs::read_dir(folder).ok()?.take(FILES);
    let times = entries.filter_map(|entry| entry.ok()?.metadata().ok()?.modified().ok());
    times.max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::FindingLevel;

    #[test]
    fn a_clock_that_is_behind_is_found() {
        let now = SystemTime::UNIX_EPOCH + EARLIEST + Duration::from_secs(86_400);
        let level = |now, newest| clock(now, newest).level;
        assert_eq!(level(now, None), FindingLevel::Ok);
        assert_eq!(level(now, Some(now)), FindingLevel::Ok);
        assert_eq!(level(now, Some(now + 2 * TOLERANCE)), FindingLevel::Warn);
        assert_eq!(level(SystemTime::UNIX_EPOCH, None), FindingLevel::Fail);
    }

    #[test]
    fn a_low_parameter_is_named_with_the_command_that_raises_it() {
        let low = sysctl("net.core.somaxconn", 128, 1024, "why");
        assert_eq!(low.level, FindingLevel::Warn);
        assert_eq!(
            low.remedy.as_deref(),
            Some("sysctl -w net.core.somaxconn=1024")
        );
        assert_eq!(sysctl("a", 1024, 1024, "why").level, FindingLevel::Ok);
    }

    #[test]
    fn a_sandbox_that_the_kernel_lacks_fails_only_a_server_that_needs_it() {
        let level = |mode, support| sandbox(mode, support).level;
        let supports = [SandboxSupport::Partial, SandboxSupport::None];
        for support in supports {
            assert_eq!(level(SandboxMode::On, support), FindingLevel::Fail);
            assert_eq!(level(SandboxMode::Auto, support), FindingLevel::Warn);
        }
        for mode in [SandboxMode::On, SandboxMode::Auto] {
            assert_eq!(level(mode, SandboxSupport::Whole), FindingLevel::Ok);
        }
    }

    #[test]
    fn a_limit_above_the_memory_is_found() {
        assert_eq!(memory(u64::MAX).level, FindingLevel::Fail);
        assert_eq!(memory(1 << 20).level, FindingLevel::Ok);
    }
}
