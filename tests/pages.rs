//! The commands of the pages, run in order as a reader runs them. Each page has a folder of its own, and one shell.
//!
//! A program that changes the machine, takes minutes or may be missing is replaced by a stub that only notes its call.
//! [`STUBS`] lists these. `millpond` always runs, with every option that a page gives it.

use crate::hosts::root;
use crate::origin::s3_server::S3Server;
use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Programs that do not run here, and why. A test fails if no page calls one.
const STUBS: [(&str, &str); 15] = [
    ("cargo", "compiles for minutes"),
    ("deploy/debian/build.sh", "needs cargo-deb"),
    ("docker", "needs its daemon"),
    ("helm", "needs a cluster"),
    ("kubectl", "needs a cluster"),
    ("man", "may be missing"),
    ("promtool", "has a test of its own"),
    ("sha256sum", "checks the files of a release"),
    ("sleep", "waits for nothing here"),
    ("ssh", "needs another machine"),
    ("sudo", "changes the machine"),
    ("systemctl", "changes the machine"),
    ("wasm-tools", "the starters' tests build guests"),
    ("wasmtime", "`cargo xtask hosts` runs the components"),
    ("pidof", "would find servers of other tests too"),
];

/// Notes its call. The output that `-o` names is a component.
const STUB: &str = r#"#!/bin/bash
echo "${0#"$STUBS_IN/"}" >> "$CALLS"
case $0 in
    */pidof) cat "$SERVER" ;;
    */sudo) cat > "$STUBS_IN/../input" ;;
esac
while [ $# -gt 1 ]; do
    if [ "$1" = -o ]; then cp "$COMPONENT" "$2"; fi
    shift
done
"#;

/// Functions of the shell. A server runs in the background until the next one starts, as in another terminal.
const PRELUDE: &str = r#"
set -euo pipefail
server=
stop() {
    if [ -n "$server" ]; then kill -KILL "$server" || true; wait "$server" 2>/dev/null || true; server=; fi
}
trap stop EXIT
# A slow download may have ended before.
kill() { builtin kill "$@" || [ "$1" = %1 ]; }
millpond() {
    # `doctor` checks the addresses of a server that does not run yet.
    case ${1-} in serve | doctor) stop ;; esac
    if [ "${1-}" != serve ]; then command millpond "$@"; return; fi
    exec {output}< <(exec millpond "$@")
    server=$!
    echo "$server" > "$SERVER"
    local line
    while read -r line <&"$output"; do
        case $line in request*) return ;; esac
    done
    echo "the server has not started: millpond $*" >&2
    return 1
}
"#;

/// `curl`, for which an error of HTTP is a failure, unless the page shows it. A stream without end ends with its first event.
const CURL: &str = r#"#!/bin/bash
PATH=$FOUND
case " $* " in
    *' -i '*) exec curl -sS "$@" ;;
    *' -N '*) curl -fsS "$@" 2>/dev/null | grep -m1 data: ;;
    *) exec curl -fsS "$@" ;;
esac
"#;

/// Commands of a page, with the line of the first one.
struct Block {
    line: usize,
    text: String,
}

/// Returns the blocks of shell commands.
fn blocks(page: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut is_inside = false;
    for (index, line) in page.lines().enumerate() {
        match line.trim() {
            "```sh" => {
                let (line, text) = (index + 2, String::new());
                blocks.push(Block { line, text });
                is_inside = true;
            }
            "```" => is_inside = false,
            _ if is_inside => {
                let block = blocks.last_mut().unwrap();
                block.text += line;
                block.text.push('\n');
            }
            _ => {}
        }
    }
    blocks
}

/// Returns the pages with commands, by their paths in the repository.
fn pages() -> Vec<PathBuf> {
    let folders = ["", "docs", "docs/reference"];
    let entries = folders
        .iter()
        .flat_map(|folder| fs::read_dir(root().join(folder)).unwrap());
    let paths = entries.map(|entry| entry.unwrap().path());
    let is_page = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "md");
    // Contributors' commands compile everything, and are those that CI runs.
    let mut pages: Vec<PathBuf> = paths
        .filter(is_page)
        .filter(|path| !path.ends_with("CONTRIBUTING.md"))
        .filter(|path| !blocks(&fs::read_to_string(path).unwrap()).is_empty())
        .collect();
    pages.sort();
    pages
}

/// Address of this machine that no other page and no other run of this test uses. The ports are those of the pages.
fn own_address(page: usize) -> Ipv4Addr {
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, u8::try_from(page + 100).unwrap(), high, low)
}

/// The folder in which a page's commands run.
struct Place {
    folder: tempfile::TempDir,
    address: Ipv4Addr,
}

impl Place {
    fn new(address: Ipv4Addr) -> Self {
        let place = Place {
            folder: tempfile::tempdir().unwrap(),
            address,
        };
        let path = |name: &str| place.folder.path().join(name);
        for name in ["home", "etc/millpond", "stubs", "work/target"] {
            fs::create_dir_all(path(name)).unwrap();
        }
        copy(&root().join("examples"), &path("work/examples"));
        copy(&root().join("deploy"), &path("work/deploy"));
        copy(&root().join("examples/media"), &path("srv/media"));
        std::os::unix::fs::symlink(root().join("components"), path("work/components")).unwrap();
        fs::copy(
            root().join("deploy/debian/config.toml"),
            path("etc/millpond/config.toml"),
        )
        .unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(path("work/fullchain.pem"), made.cert.pem()).unwrap();
        fs::write(path("work/privkey.pem"), made.signing_key.serialize_pem()).unwrap();
        let stubs = STUBS.iter().map(|(program, _)| (*program, STUB));
        for (program, text) in stubs.chain([("curl", CURL)]) {
            let in_folder = if program.contains('/') {
                "work"
            } else {
                "stubs"
            };
            let file = path(in_folder).join(program);
            fs::write(&file, text).unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            fs::set_permissions(file, mode).unwrap();
        }
        let program = Path::new(env!("CARGO_BIN_EXE_millpond"));
        std::os::unix::fs::symlink(program, path("stubs/millpond")).unwrap();
        place
    }

    /// Replaces the address and the absolute paths of a page by those of this place.
    fn adapted(&self, text: &str) -> String {
        let address = self.address.to_string();
        let here = self.folder.path().to_str().unwrap();
        text.replace("cargo run --release -- ", "millpond ")
            .replace("127.0.0.1", &address)
            .replace("--admin :8079", &format!("--admin {address}:8079"))
            .replace("--listen :443", &format!("--listen {address}:8443"))
            .replace("/srv/", &format!("{here}/srv/"))
            .replace("/etc/millpond/", &format!("{here}/etc/millpond/"))
    }

    /// Runs a page. Returns the stubs that it called, or the output if a command failed.
    fn run(&self, page: &Path) -> Result<Vec<String>, String> {
        let path = |name: &str| self.folder.path().join(name);
        let text = fs::read_to_string(page).unwrap();
        // The page about the configuration file has an example of it.
        if let Some((_, example)) = text.split_once("```toml\n") {
            let (example, _) = example.split_once("```").unwrap();
            fs::write(path("work/millpond.toml"), example).unwrap();
        }
        let name = page.strip_prefix(root()).unwrap().display();
        let mut script = PRELUDE.to_owned();
        // The server of the page before, or of the package.
        script += "millpond serve examples/media\n";
        for Block { line, text } in blocks(&text) {
            script += &format!("echo '{name}:{line}' >&2\n{}\n", self.adapted(&text));
        }
        let found = std::env::var("PATH").unwrap_or_default();
        let cache = std::env::var("XDG_CACHE_HOME").ok().map(PathBuf::from);
        let cache = cache.unwrap_or_else(|| {
            Path::new(&std::env::var("HOME").unwrap_or_default()).join(".cache")
        });
        let mut shell = Command::new("bash");
        shell.arg("-c").arg(script).current_dir(path("work"));
        shell.stdin(Stdio::null());
        shell.env("PATH", format!("{}:{found}", path("stubs").display()));
        shell.env("FOUND", found);
        shell.env("HOME", path("home")).env("XDG_CACHE_HOME", cache);
        shell
            .env("STUBS_IN", path("stubs"))
            .env("CALLS", path("calls"));
        shell.env("SERVER", path("server"));
        shell.env(
            "COMPONENT",
            root().join("host/millpond/component/media-serve.wasm"),
        );
        shell.env("MILLPOND_LISTEN", format!("{}:8080", self.address));
        shell.env("MILLPOND_ADMIN", format!("{}:8079", self.address));
        let object_storage = S3Server::start();
        object_storage.put("bucket", "films/a.txt", b"a named file");
        shell.envs(object_storage.environment());
        let output = shell.output().unwrap();
        if !output.status.success() {
            let [out, err] = [output.stdout, output.stderr];
            let [out, err] = [out, err].map(|text| String::from_utf8_lossy(&text).into_owned());
            return Err(format!("{name}: {}\n{out}\n{err}", output.status));
        }
        let calls = fs::read_to_string(path("calls")).unwrap_or_default();
        Ok(calls.lines().map(str::to_owned).collect())
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
#[ignore = "needs bash, curl, jq and openssl"]
fn every_command_of_the_pages_succeeds() {
    let pages = pages();
    assert!(pages.len() > 8, "{pages:?}");
    let runs: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = pages
            .iter()
            .enumerate()
            .map(|(index, page)| scope.spawn(move || Place::new(own_address(index)).run(page)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let failed: Vec<&String> = runs.iter().filter_map(|run| run.as_ref().err()).collect();
    let failed: Vec<&str> = failed.into_iter().map(String::as_str).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
    let called: BTreeSet<String> = runs.into_iter().flatten().flatten().collect();
    for (program, _) in STUBS {
        let is_called = called.iter().any(|call| call == program);
        assert!(
            is_called,
            "no page calls {program}: take it off the list, {called:?}"
        );
    }
}

/// Returns the arguments of each `millpond` in a line of shell commands, or in a span of code.
fn arguments(line: &str) -> Vec<Vec<&str>> {
    let commands = line.split(['|', '&', ';', '(', ')', '>', '#']);
    let commands = commands.filter_map(|command| {
        let command = command.trim();
        let command = command
            .strip_prefix("cargo run --release -- ")
            .map_or_else(|| command.strip_prefix("millpond "), Some)?;
        // Something else takes the place of these.
        let is_plain = |word: &&str| !word.contains(['$', '…', '"']) && !word.ends_with("...");
        let words: Vec<&str> = command.split_whitespace().filter(is_plain).collect();
        (words.first() != Some(&"COMMAND")).then_some(words)
    });
    commands.collect()
}

#[test]
fn every_option_that_the_pages_give_to_millpond_exists() {
    let (mut count, mut failed) = (0, Vec::new());
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        let of_blocks = blocks(&text);
        let lines = of_blocks.iter().flat_map(|block| block.text.lines());
        let spans = text
            .lines()
            .flat_map(|line| line.split('`').skip(1).step_by(2));
        for line in lines.chain(spans) {
            for arguments in arguments(line) {
                // The help comes after all options before it were understood.
                let mut command = Command::new(env!("CARGO_BIN_EXE_millpond"));
                let output = command.args(&arguments).arg("--help").output().unwrap();
                let error = String::from_utf8_lossy(&output.stderr);
                if !output.status.success() {
                    failed.push(format!("{}: {line}: {error}", page.display()));
                }
                count += 1;
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert!(count > 30, "{count}");
}
