//! Landlock (landlock(7)).

use super::rules::{PathAccess, SandboxRules};
use super::support::SandboxSupport;
use anyhow::{Context, Result};
use landlock::{
    ABI, Access, AccessFs, AccessNet, AddRuleError, AddRulesError, BitFlags, CompatLevel,
    Compatible, NetPort, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError,
    Scope, path_beneath_rules,
};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::path::Path;

/// Version of the interface whose restrictions the tests have run with, of Linux 6.12. Later ones are not used: they
/// would also restrict the socket of the service manager.
const VERSION: ABI = ABI::V6;

/// Files about the process, its control group and the machine. The memory monitor and the metrics read them, mounts are
/// followed, and the system's library counts processors.
const OF_PROCESS: [&str; 5] = [
    "/proc/meminfo",
    "/proc/self",
    "/proc/stat",
    "/sys/devices/system/cpu/online",
    "/sys/fs/cgroup",
];

/// Devices that libraries open.
const DEVICES: [&str; 2] = ["/dev/null", "/dev/urandom"];

/// Returns what the kernel can enforce.
pub(super) fn support() -> SandboxSupport {
    let required = CompatLevel::HardRequirement;
    let ruleset = || Ruleset::default().set_compatibility(required);
    if handling(ruleset(), true).is_ok() {
        SandboxSupport::Whole
    } else if ruleset().handle_access(AccessFs::Refer).is_ok() {
        SandboxSupport::Partial
    } else {
        SandboxSupport::None
    }
}

/// Restricts this thread, and those that it starts. Returns handles that have to stay open: a rule is about an inode, and
/// `/proc` makes another one for a path that nobody holds.
pub(super) fn enter(rules: &SandboxRules) -> Result<Vec<File>> {
    let mut ruleset = handling(Ruleset::default(), !rules.needs_abstract_sockets)?;
    for path in OF_PROCESS {
        allow(&mut ruleset, Path::new(path), PathAccess::Read)?;
    }
    for path in DEVICES {
        allow(&mut ruleset, Path::new(path), PathAccess::Files)?;
    }
    for (path, access) in &rules.paths {
        allow(&mut ruleset, path, *access)?;
    }
    for port in &rules.bind_ports {
        (&mut ruleset).add_rule(NetPort::new(*port, AccessNet::BindTcp))?;
    }
    for port in &rules.connect_ports {
        (&mut ruleset).add_rule(NetPort::new(*port, AccessNet::ConnectTcp))?;
    }
    let hold = |path: &str| rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    let held = OF_PROCESS.iter().filter_map(|path| hold(path).ok());
    let held = held.map(File::from).collect();
    ruleset
        .restrict_self()
        .context("cannot enter the sandbox")?;
    Ok(held)
}

/// Returns a ruleset that denies everything, as far as its compatibility level allows it to. Execution is never allowed.
fn handling(ruleset: Ruleset, scopes_sockets: bool) -> Result<RulesetCreated, RulesetError> {
    let scopes = Scope::from_all(VERSION);
    let scopes = if scopes_sockets {
        scopes
    } else {
        scopes & !BitFlags::from(Scope::AbstractUnixSocket)
    };
    ruleset
        .handle_access(AccessFs::from_all(VERSION))?
        .handle_access(AccessNet::from_all(VERSION))?
        .scope(scopes)?
        .create()
}

fn allow(ruleset: &mut RulesetCreated, path: &Path, access: PathAccess) -> Result<()> {
    use AccessFs::{
        MakeDir, MakeReg, MakeSock, ReadDir, ReadFile, Refer, RemoveDir, RemoveFile, Truncate,
        WriteFile,
    };
    let files = ReadFile | ReadDir | WriteFile | Truncate | MakeReg | RemoveFile;
    let access = match access {
        PathAccess::Read => ReadFile | ReadDir,
        PathAccess::Append => WriteFile | MakeReg,
        PathAccess::Files => files,
        PathAccess::Tree => files | MakeDir | RemoveDir | Refer,
        PathAccess::Sockets => MakeSock | RemoveFile,
    };
    for rule in path_beneath_rules([path], access) {
        match ruleset.add_rule(rule?) {
            // A pipe between processes has no path that could be restricted.
            Err(RulesetError::AddRules(AddRulesError::Fs(AddRuleError::AddRuleCall {
                source,
                ..
            }))) if Errno::from_io_error(&source) == Some(Errno::BADFD) => {}
            added => {
                let context = || format!("cannot allow {} in the sandbox", path.display());
                added.map(drop).with_context(context)?;
            }
        }
    }
    Ok(())
}

/// Whether the permissions of a file let this process read it. The kernel does not ask the sandbox here.
pub(super) fn is_permitted(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::READ_OK).is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::sandbox::{Sandbox, SandboxMode};
    use std::fs;
    use std::io::{self, ErrorKind};
    use std::net::{TcpListener, TcpStream};
    use std::process::Command;

    /// Runs something on a thread in the sandbox. Returns `None` if the kernel has none.
    fn confined<T: Send>(rules: &SandboxRules, run: impl FnOnce() -> T + Send) -> Option<T> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| match support() {
                SandboxSupport::Whole => {
                    let _entered = Sandbox::enter(SandboxMode::On, rules).unwrap();
                    Some(run())
                }
                lacking => {
                    eprintln!("not tested: {lacking}");
                    let refused = Sandbox::enter(SandboxMode::On, rules).unwrap_err();
                    assert!(refused.to_string().starts_with("--sandbox on: the kernel"));
                    None
                }
            });
            thread.join().unwrap()
        })
    }

    fn is_denied<T>(result: io::Result<T>) -> bool {
        result.is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
    }

    #[test]
    fn a_confined_thread_opens_what_the_rules_name_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["read", "files", "other"] {
            fs::create_dir(path(name)).unwrap();
            fs::write(path(name).join("a"), "a").unwrap();
        }
        let mut rules = SandboxRules::default();
        rules.allow(path("read"), PathAccess::Read);
        rules.allow(path("files"), PathAccess::Files);
        rules.allow(path("missing"), PathAccess::Files);
        confined(&rules, || {
            assert_eq!(fs::read(path("read/a")).unwrap(), b"a");
            assert!(is_denied(fs::write(path("read/a"), "b")));
            assert!(is_denied(fs::remove_file(path("read/a"))));
            assert!(is_denied(File::create(path("read/b"))));
            fs::write(path("files/b"), "b").unwrap();
            fs::rename(path("files/b"), path("files/a")).unwrap();
            assert!(is_denied(fs::create_dir(path("files/c"))));
            assert!(is_denied(File::open(path("other/a"))));
            assert!(is_denied(fs::read_dir(folder.path())));
            assert!(is_denied(File::open("/etc/passwd")));
            assert!(is_denied(File::open("/proc/1/environ")));
            fs::read_to_string("/proc/self/status").unwrap();
            assert!(is_denied(Command::new("/bin/true").status()));
        });
    }

    #[test]
    fn a_confined_thread_binds_its_ports_only_and_connects_to_none() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let rules = SandboxRules::default();
        confined(&rules, || {
            assert!(is_denied(TcpStream::connect(address)));
            assert!(is_denied(TcpListener::bind("127.0.0.1:0")));
        });
        let rules = SandboxRules {
            bind_ports: vec![0],
            connect_ports: vec![address.port()],
            ..SandboxRules::default()
        };
        confined(&rules, || {
            TcpStream::connect(address).unwrap();
            TcpListener::bind("127.0.0.1:0").unwrap();
        });
    }

    #[test]
    fn a_deployment_that_switches_a_link_stays_in_reach() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["releases/1/media", "releases/2/media"] {
            fs::create_dir_all(path(name)).unwrap();
            fs::write(path(name).join("a"), name).unwrap();
        }
        fs::write(path("secret"), "").unwrap();
        let link = |to: &str| {
            let _ = fs::remove_file(path("current"));
            std::os::unix::fs::symlink(path(to), path("current")).unwrap();
        };
        link("releases/1");
        let mut rules = SandboxRules::default();
        rules.allow_served(&path("current/media/"), PathAccess::Read);
        // The link is switched outside the sandbox.
        link("releases/2");
        confined(&rules, || {
            let read = fs::read_to_string(path("current/media/a")).unwrap();
            assert_eq!(read, "releases/2/media");
            assert!(is_denied(File::open(path("secret"))));
        });
    }

    #[test]
    fn a_secret_of_kubernetes_is_read_again_after_its_links_have_moved() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for (name, content) in [("tls/..1", "old"), ("tls/..2", "new")] {
            fs::create_dir_all(path(name)).unwrap();
            fs::write(path(name).join("tls.crt"), content).unwrap();
        }
        let link = |to: &str, from: &str| std::os::unix::fs::symlink(to, path(from)).unwrap();
        link("..1", "tls/..data");
        link("..data/tls.crt", "tls/tls.crt");
        let mut rules = SandboxRules::default();
        rules.allow_replaceable(&path("tls/tls.crt"));
        link("..2", "tls/..new");
        fs::rename(path("tls/..new"), path("tls/..data")).unwrap();
        confined(&rules, || {
            assert_eq!(fs::read(path("tls/tls.crt")).unwrap(), b"new");
        });
    }

    #[test]
    fn a_log_is_made_anew_after_a_rotation_and_a_pipe_is_no_fault() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("a.log");
        let (_reader, writer) = io::pipe().unwrap();
        let mut rules = SandboxRules::default();
        rules.allow_log(&log);
        let pipe = std::os::fd::AsRawFd::as_raw_fd(&writer);
        rules.allow_log(Path::new(&format!("/dev/fd/{pipe}")));
        confined(&rules, || {
            let open = || File::options().append(true).create(true).open(&log);
            open().unwrap();
            open().unwrap();
            assert!(is_denied(File::open(&log)));
        });
    }
}
