//! `millpond add`, `publish` and `check` over stores that others use too: access, pipes, signals, other users.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";

/// A folder with a store in it, and files to add to that.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Place { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn store(&self) -> PathBuf {
        self.path("store")
    }

    fn write(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        path
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_millpond"));
        command.arg(name).arg("--store").arg(self.store());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn add(&self, file: &Path, arguments: &[&str]) -> Output {
        let mut command = self.command("add");
        command.args(arguments).arg(file).output().unwrap()
    }

    /// Adds what has to go well, and returns its id and access.
    fn added(&self, file: &Path, arguments: &[&str]) -> (String, String) {
        let output = self.add(file, &[arguments, &["--json"]].concat());
        assert!(output.status.success(), "{output:?}");
        let line: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let text = |name: &str| line[name].as_str().unwrap().to_owned();
        (text("id"), text("access"))
    }

    fn publish(&self, id: &str) -> Output {
        self.command("publish").arg(id).output().unwrap()
    }

    fn record(&self, id: &str) -> serde_json::Value {
        let path = self.store().join(&id[..2]).join(format!("{id}.json"));
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    }

    fn access(&self, id: &str) -> String {
        self.record(id)["access"].as_str().unwrap().to_owned()
    }

    fn check(&self) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_millpond"));
        command.arg("check").arg(self.store()).output().unwrap()
    }
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

#[test]
fn what_was_public_is_private_once_it_is_added_so_and_says_it() {
    let place = Place::new();
    let file = place.write("x.png", PNG);
    let public = place.add(&file, &[]);
    assert!(
        stdout(&public).contains("  image/png  public  "),
        "{public:?}"
    );
    let private = place.add(&file, &["--private"]);
    assert!(private.status.success(), "{private:?}");
    let line = stdout(&private);
    assert!(
        line.contains("  image/png  private  ")
            && line.contains("(already in the store; was public, now private)"),
        "{line}"
    );
    let id = line.split_whitespace().next().unwrap();
    assert_eq!(place.access(id), "private");
}

#[test]
fn what_is_private_stays_so_until_it_is_published() {
    let place = Place::new();
    let file = place.write("x.png", PNG);
    let (id, access) = place.added(&file, &["--private"]);
    assert_eq!(access, "private");
    let again = place.add(&file, &[]);
    assert!(again.status.success(), "{again:?}");
    let line = stdout(&again);
    assert!(
        line.contains("  private  ") && line.contains("already in the store; stays private"),
        "{line}"
    );
    // Nor does it become public where it is put right.
    let content = place.store().join(&id[..2]).join(&id);
    let record = content.with_extension("json");
    for damage in [&content, &record] {
        fs::write(damage, "damaged").unwrap();
        let line = place.add(&file, &[]);
        assert!(stdout(&line).contains("stays private"), "{line:?}");
        assert_eq!(place.access(&id), "private");
    }
    let published = place.publish(&id);
    assert!(published.status.success(), "{published:?}");
    assert!(stdout(&published).contains("  public  (was private)"));
    assert_eq!(place.access(&id), "public");
    let missing = place.publish(&"0".repeat(64));
    assert_eq!(missing.status.code(), Some(1));
    assert!(
        stderr(&missing).contains("there is no media 000"),
        "{missing:?}"
    );
}

#[test]
fn variants_of_private_media_are_private() {
    let place = Place::new();
    let (file, other) = (place.write("x.png", PNG), place.write("y", b"a variant"));
    let (original, _) = place.added(&file, &[]);
    let (variant, access) = place.added(&other, &["--variant-of", &original]);
    assert_eq!(access, "public");
    // It becomes private with its original, and says so.
    let narrowed = place.add(&file, &["--private"]);
    assert!(stderr(&narrowed).contains(&variant), "{narrowed:?}");
    assert_eq!(place.access(&variant), "private");
    // It is published for itself.
    let published = place.publish(&original);
    assert!(stderr(&published).contains(&variant), "{published:?}");
    assert_eq!(place.access(&variant), "private");
    // One that is added later is private from the start.
    place.added(&file, &["--private"]);
    let third = place.write("z", b"another variant");
    let (third, access) = place.added(&third, &["--variant-of", &original]);
    assert_eq!(
        (access.as_str(), &*place.access(&third)),
        ("private", "private")
    );
}

#[test]
fn nothing_is_stored_for_an_original_that_is_not_there() {
    let place = Place::new();
    let file = place.write("x.png", PNG);
    let output = place.add(&file, &["--variant-of", &"0".repeat(64)]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert_eq!(stderr(&output).lines().count(), 1, "{output:?}");
    let stored = fs::read_dir(place.store()).unwrap();
    let names: Vec<_> = stored.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, [".incoming"]);
}

#[test]
fn variants_that_are_added_at_once_are_all_recorded() {
    const VARIANTS: usize = 6;
    let place = Place::new();
    let file = place.write("x.png", PNG);
    let (original, _) = place.added(&file, &[]);
    let start = |number: usize| {
        let variant = place.write(&format!("{number}"), format!("variant {number}").as_bytes());
        let mut command = place.command("add");
        command.args(["--variant-of", &original]).arg(variant);
        command.spawn().unwrap()
    };
    let children: Vec<Child> = (0..VARIANTS).map(start).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    let record = place.record(&original);
    assert_eq!(record["variants"].as_array().unwrap().len(), VARIANTS);
}

#[test]
fn variants_that_point_nowhere_are_told_by_check() {
    let place = Place::new();
    let (file, other) = (place.write("x.png", PNG), place.write("y", b"a variant"));
    let (original, _) = place.added(&file, &[]);
    let (variant, _) = place.added(&other, &["--variant-of", &original]);
    assert_eq!(place.check().status.code(), Some(0));
    let content = place.store().join(&variant[..2]).join(&variant);
    fs::remove_file(content.with_extension("json")).unwrap();
    fs::remove_file(content).unwrap();
    let check = place.check();
    assert_eq!(check.status.code(), Some(1));
    let line = stderr(&check);
    assert!(
        line.contains(&format!("{original}.json")) && line.contains(&variant),
        "{line}"
    );
}

#[cfg(unix)]
mod unix {
    use super::*;
    use crate::host::noise;
    use rustix::process::{Pid, Signal, kill_process};
    use std::fs::File;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::os::unix::process::CommandExt;
    use std::process::ChildStdin;

    /// More than a pipe holds: once it is written, some of it has been read and stored.
    const SOME_BYTES: usize = 256 * 1024;

    fn pipe(place: &Place, name: &str) -> PathBuf {
        let path = place.path(name);
        let made = Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        path
    }

    /// Starts to add what comes through standard input, and returns the child and the pipe's other end.
    fn begin(mut command: Command) -> (Child, ChildStdin) {
        let mut child = command.arg("-").stdin(Stdio::piped()).spawn().unwrap();
        let mut writer = child.stdin.take().unwrap();
        writer.write_all(&noise(SOME_BYTES)).unwrap();
        (child, writer)
    }

    fn temporary_files(place: &Place) -> Vec<PathBuf> {
        let entries = fs::read_dir(place.store().join(".incoming")).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        paths.filter(|path| !path.ends_with("lock")).collect()
    }

    fn kill(child: &Child, signal: Signal) {
        kill_process(Pid::from_child(child), signal).unwrap();
    }

    #[test]
    fn pipes_are_stored() {
        let content = noise(SOME_BYTES + 1);
        for name in ["-", "/dev/stdin", "pipe"] {
            let place = Place::new();
            let mut command = place.command("add");
            command.arg("--json").stdin(Stdio::piped());
            let (child, mut writer): (Child, Box<dyn Write>) = if name == "pipe" {
                let pipe = pipe(&place, name);
                let child = command.arg(&pipe).spawn().unwrap();
                let writer = File::options().write(true).open(&pipe).unwrap();
                (child, Box::new(writer))
            } else {
                let mut child = command.arg(name).spawn().unwrap();
                let writer = child.stdin.take().unwrap();
                (child, Box::new(writer))
            };
            writer.write_all(&content).unwrap();
            drop(writer);
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{name}: {output:?}");
            let line: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            let id = line["id"].as_str().unwrap();
            let stored = fs::read(place.store().join(&id[..2]).join(id)).unwrap();
            assert!(stored == content, "{name}");
            assert!(temporary_files(&place).is_empty());
        }
    }

    #[test]
    fn devices_and_sockets_are_refused_by_name() {
        let place = Place::new();
        let socket = place.path("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        for (path, kind) in [
            (Path::new("/dev/null"), "a character device"),
            (Path::new("/dev/zero"), "a character device"),
            (&socket, "a socket"),
        ] {
            let output = place.add(path, &[]);
            assert_eq!(output.status.code(), Some(1), "{output:?}");
            let expected = format!("cannot add {}: it is {kind}", path.display());
            assert!(stderr(&output).contains(&expected), "{output:?}");
        }
        let mut command = place.command("add");
        let output = command.arg("-").stdin(Stdio::null()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(temporary_files(&place).is_empty());
    }

    #[test]
    fn pipes_within_a_folder_are_passed_over_and_told() {
        let place = Place::new();
        let source = place.path("source");
        fs::create_dir(&source).unwrap();
        fs::write(source.join("x.png"), PNG).unwrap();
        pipe(&place, "source/pipe");
        let output = place.add(&source, &[]);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(stdout(&output).lines().count(), 1);
        assert!(stderr(&output).contains("skipped"), "{output:?}");
    }

    #[test]
    fn an_add_that_is_interrupted_leaves_nothing() {
        for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
            let place = Place::new();
            // `nohup` ignores SIGHUP, and programs inherit that.
            let mut command = Command::new("env");
            command.arg("--default-signal=INT,TERM,HUP");
            command.arg(env!("CARGO_BIN_EXE_millpond"));
            command.args(["add", "--store"]).arg(place.store());
            let (child, _writer) = begin(command);
            assert_eq!(temporary_files(&place).len(), 1);
            kill(&child, signal);
            let output = child.wait_with_output().unwrap();
            assert_eq!(output.status.code(), Some(128 + signal.as_raw()));
            assert!(temporary_files(&place).is_empty());
            assert_eq!(place.check().status.code(), Some(0));
        }
    }

    #[test]
    fn a_signal_that_was_ignored_stays_so() {
        let place = Place::new();
        let mut command = Command::new("sh");
        let script = r#"trap "" HUP; exec "$@""#;
        command.args(["-c", script, "sh", env!("CARGO_BIN_EXE_millpond")]);
        command.args(["add", "--store"]).arg(place.store());
        command.stdout(Stdio::null());
        let (child, writer) = begin(command);
        kill(&child, Signal::HUP);
        drop(writer);
        assert!(child.wait_with_output().unwrap().status.success());
    }

    #[test]
    fn what_a_killed_add_left_is_told_by_check_and_removed_by_the_next_add() {
        let place = Place::new();
        let (mut killed, _writer) = begin(place.command("add"));
        kill(&killed, Signal::KILL);
        killed.wait().unwrap();
        let left = temporary_files(&place);
        assert_eq!(left.len(), 1);
        let check = place.check();
        assert_eq!(check.status.code(), Some(1), "{check:?}");
        let name = left[0].file_name().unwrap().to_str().unwrap();
        assert!(stderr(&check).contains(name), "{check:?}");
        assert!(
            stdout(&check).contains("1 orphaned temporary file ("),
            "{check:?}"
        );

        // It removes the old one, and neither check nor another add takes its own for one.
        let (running, writer) = begin(place.command("add"));
        assert!(!left[0].exists());
        let in_use = temporary_files(&place);
        assert_eq!(in_use.len(), 1);
        let check = place.check();
        assert_eq!(check.status.code(), Some(0), "{check:?}");
        place.added(&place.write("x.png", PNG), &[]);
        assert_eq!(temporary_files(&place), in_use);
        drop(writer);
        assert!(running.wait_with_output().unwrap().status.success());
        assert!(temporary_files(&place).is_empty());
    }

    /// Asserts that every user can read a folder, whatever the umask.
    fn assert_is_open(path: &Path) {
        let mode = path.metadata().unwrap().mode();
        let least = if path.is_dir() { 0o755 } else { 0o644 };
        assert_eq!(mode & least, least, "{} has {mode:o}", path.display());
    }

    #[test]
    fn folders_are_as_open_as_files_whatever_the_umask() {
        for umask in ["077", "027", "002"] {
            let place = Place::new();
            let file = place.write("x.png", PNG);
            let script = format!(r#"umask {umask}; exec "$@""#);
            let mut command = Command::new("sh");
            command.args(["-c", &script, "sh", env!("CARGO_BIN_EXE_millpond"), "add"]);
            let store = place.path("deep/store");
            let output = command
                .arg(file)
                .arg("--store")
                .arg(&store)
                .output()
                .unwrap();
            assert!(output.status.success(), "{output:?}");
            let id = stdout(&output).split_whitespace().next().unwrap();
            let content = store.join(&id[..2]).join(id);
            assert_is_open(&content);
            assert_is_open(&content.with_extension("json"));
            for folder in content.ancestors().skip(1).take(3) {
                assert_is_open(folder);
            }
        }
    }

    #[test]
    fn what_the_user_of_check_may_not_read_is_told() {
        const NOBODY: u32 = 65_534;
        let place = Place::new();
        let (id, _) = place.added(&place.write("x.png", PNG), &[]);
        let mode = |path: &Path, mode: u32| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        mode(place.folder.path(), 0o755);
        let folder = place.store().join(&id[..2]);
        let record = folder.join(format!("{id}.json"));
        for (path, closed, open) in [
            (&folder, 0o000, 0o755),
            (&folder, 0o644, 0o755),
            (&folder.join(&id), 0o000, 0o644),
            (&record, 0o000, 0o644),
        ] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_millpond"));
            command.arg("check").arg(place.store());
            // The superuser reads everything.
            if rustix::process::geteuid().is_root() {
                command.uid(NOBODY).gid(NOBODY);
            }
            mode(path, closed);
            let check = match command.output() {
                Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                    eprintln!("skipped: another user cannot run the program where it lies");
                    mode(path, open);
                    return;
                }
                check => check.unwrap(),
            };
            mode(path, open);
            assert_eq!(check.status.code(), Some(1), "{closed:o}: {check:?}");
            assert!(stderr(&check).contains("cannot be read"), "{check:?}");
            assert!(stderr(&check).contains(&id[..2]), "{check:?}");
        }
    }
}
