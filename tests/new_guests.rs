//! Guests from `millpond new`: written, built by the commands in their READMEs, and served from. And guests in these
//! languages that misbehave, which are ended while others go on.

use crate::host::{Host, Setup, with};
use crate::hosts::{installed, root};
use crate::instance;
use crate::server::Server;
use millpond::{Limits, Outcome, Source};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Rust toolchain for WebAssembly, and wasm-tools"]
async fn a_guest_in_rust_is_built_and_served_as_its_readme_says() {
    let guest = NewGuest::write("rust");
    // The build folder is kept for the next run.
    let kept = root().join("target/hosts/rust");
    fs::create_dir_all(&kept).unwrap();
    std::os::unix::fs::symlink(kept, guest.folder.join("target")).unwrap();
    guest.assert_is_as_its_readme_says().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs node"]
async fn a_guest_in_javascript_is_built_and_served_as_its_readme_says() {
    let guest = NewGuest::write("javascript");
    guest.assert_is_as_its_readme_says().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs componentize-py"]
async fn a_guest_in_python_is_built_and_served_as_its_readme_says() {
    let guest = NewGuest::write("python");
    guest.assert_is_as_its_readme_says().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs node"]
async fn a_guest_in_javascript_that_misbehaves_is_ended_while_others_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let component = folder.path().join("misbehaving.wasm");
    let component = component.to_str().unwrap();
    let guests = root().join("tests/guests/javascript");
    run(&guests, &format!("npm run build {component}"));
    let host = misbehaving(component).await;
    assert_ended(&host, "/endless-loop", 503, "Request took too long").await;
    assert_ended(
        &host,
        "/memory-hog",
        500,
        "Request limit reached: guest memory",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs componentize-py"]
async fn a_guest_in_python_that_misbehaves_is_ended_while_others_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let component = folder.path().join("misbehaving.wasm");
    let component = component.to_str().unwrap();
    let guests = root().join("tests/guests/python");
    let build = "componentize-py -d ../../../wit -w media-guest componentize --stub-wasi -p . \
                 -p ../../../host/cli/starters/python misbehaving -o";
    run(&guests, &format!("{build} {component}"));
    let host = misbehaving(component).await;
    assert_ended(&host, "/endless-loop", 503, "Request took too long").await;
    assert_ended(
        &host,
        "/memory-hog",
        500,
        "Request limit reached: guest memory",
    )
    .await;
    let caught = host.get("/memory-hog/caught").await;
    assert_eq!(caught.status, 200);
    assert!(caught.body.ends_with(b" pieces of 64 KiB"), "{caught:?}");
}

/// The tests above run where other programs are. Their READMEs are read here, so that a change of words is found at once.
#[test]
fn the_readme_of_a_new_guest_has_what_its_test_reads() {
    for lang in ["rust", "javascript", "python"] {
        let guest = NewGuest::write(lang);
        assert!(!guest.commands("Build").is_empty(), "{lang}");
        let [memory, least] = [guest.request_memory(), guest.least_request_memory()]
            .map(|size| size.parse::<bytesize::ByteSize>().unwrap());
        assert!(least <= memory, "{lang}: {least} of {memory}");
    }
}

/// A guest that `millpond new` has written.
struct NewGuest {
    lang: &'static str,
    folder: PathBuf,
    readme: String,
    _parent: tempfile::TempDir,
}

impl NewGuest {
    fn write(lang: &'static str) -> Self {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("guest");
        let arguments = ["new", folder.to_str().unwrap(), "--lang", lang];
        assert_succeeds(&millpond(&arguments), &arguments);
        let readme = fs::read_to_string(folder.join("README.md")).unwrap();
        // The crates are those of this workspace, since they may not be published in this version.
        let cargo = parent.path().join(".cargo");
        fs::create_dir(&cargo).unwrap();
        let path = |name: &str| root().join(name).display().to_string();
        let patches = format!(
            "[patch.crates-io]\nmillpond-format.path = {:?}\nmillpond-guest.path = {:?}\n",
            path("format"),
            path("guest")
        );
        fs::write(cargo.join("config.toml"), patches).unwrap();
        NewGuest {
            lang,
            folder,
            readme,
            _parent: parent,
        }
    }

    /// The commands under a heading of the README.
    fn commands(&self, heading: &str) -> &str {
        let (_, section) = self
            .readme
            .split_once(&format!("\n## {heading}\n"))
            .unwrap();
        let (_, commands) = section.split_once("\n```sh\n").unwrap();
        commands.split_once("\n```\n").unwrap().0
    }

    fn build(&self) {
        run(&self.folder, self.commands("Build"));
    }

    fn component(&self) -> String {
        self.folder.join("guest.wasm").to_str().unwrap().to_owned()
    }

    /// The memory that the README's command gives each request.
    fn request_memory(&self) -> &str {
        let (_, rest) = self
            .commands("Run")
            .split_once("--request-memory-limit ")
            .unwrap();
        rest.split_ascii_whitespace().next().unwrap()
    }

    /// The minimum that the README states.
    fn least_request_memory(&self) -> &str {
        let (before, _) = self.readme.split_once("` is the minimum").unwrap();
        before.rsplit_once("`--request-memory-limit ").unwrap().1
    }

    async fn assert_is_as_its_readme_says(&self) {
        self.build();
        self.assert_serves();
        self.assert_charged().await;
    }

    fn assert_serves(&self) {
        let component = self.component();
        let inspect =
            |memory: &str| millpond(&["inspect", &component, "--request-memory-limit", memory]);
        let least = self.least_request_memory();
        assert_succeeds(&inspect(least), &["inspect", least]);
        let size: bytesize::ByteSize = least.parse().unwrap();
        let less = (size.as_u64() / 2).to_string();
        let refused = inspect(&less);
        let stderr = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(
            refused.status.code(),
            Some(2),
            "{less} are enough: {stderr}"
        );
        assert!(stderr.contains("raise --request-memory-limit"), "{stderr}");

        let media = tempfile::tempdir().unwrap();
        fs::write(media.path().join("a b.gif"), b"GIF89a").unwrap();
        for memory in [self.request_memory(), least] {
            let arguments = ["--component", &component, "--request-memory-limit", memory];
            let server = Server::start(media.path(), &arguments);
            let found = server.get("/media/a%20b.gif");
            assert!(found.starts_with("HTTP/1.1 200 "), "{}: {found}", self.lang);
            assert!(found.contains("\r\ncontent-type: image/gif\r\n"), "{found}");
            assert!(found.ends_with("\r\n\r\nGIF89a"), "{found}");
            let head = server.ask_for("HEAD", "/media/a%20b.gif");
            assert!(head.starts_with("HTTP/1.1 200 "), "{}: {head}", self.lang);
            assert!(head.contains("\r\ncontent-length: 6\r\n"), "{head}");
            assert!(head.ends_with("\r\n\r\n"), "{head}");
            for target in ["/media/none", "/media/%2e%2e/a", "/media/%ff", "/other"] {
                let none = server.get(target);
                assert!(none.starts_with("HTTP/1.1 40"), "{}: {none}", self.lang);
                assert!(none.contains("\r\n\r\n{\"error\":"), "{none}");
            }
            self.assert_ranges_and_conditions(&server);
            if self.lang == "rust" {
                assert_has_its_own_rules(&server);
            }
            let deleted = server.ask_for("DELETE", "/media/a%20b.gif");
            assert!(
                deleted.starts_with("HTTP/1.1 405 "),
                "{}: {deleted}",
                self.lang
            );
            assert!(deleted.contains("\r\nallow: GET, HEAD"), "{deleted}");
        }
    }

    /// RFC 9110 sections 13 and 14, for a file of six bytes.
    fn assert_ranges_and_conditions(&self, server: &Server) {
        let get = |method: &str, fields: &[(&str, &str)]| {
            server.ask_with(method, "/media/a%20b.gif", fields)
        };
        let whole = get("GET", &[]);
        let etag = field(&whole, "etag").unwrap_or_else(|| panic!("{}: {whole}", self.lang));
        for (method, fields, status, content_range, content) in [
            (
                "GET",
                &[("range", "bytes=1-3")][..],
                206,
                Some("bytes 1-3/6"),
                "IF8",
            ),
            (
                "GET",
                &[("range", "bytes=4-")],
                206,
                Some("bytes 4-5/6"),
                "9a",
            ),
            (
                "GET",
                &[("range", "bytes=-2")],
                206,
                Some("bytes 4-5/6"),
                "9a",
            ),
            (
                "GET",
                &[("range", "bytes=-9")],
                206,
                Some("bytes 0-5/6"),
                "GIF89a",
            ),
            (
                "GET",
                &[("range", "bytes=2-99")],
                206,
                Some("bytes 2-5/6"),
                "F89a",
            ),
            ("GET", &[("range", "bytes=6-")], 416, Some("bytes */6"), "{"),
            ("GET", &[("range", "bytes=-0")], 416, Some("bytes */6"), "{"),
            (
                "GET",
                &[("range", "bytes=3-1")],
                416,
                Some("bytes */6"),
                "{",
            ),
            ("GET", &[("range", "items=0-1")], 200, None, "GIF89a"),
            ("HEAD", &[("range", "bytes=1-3")], 200, None, ""),
            ("GET", &[("if-none-match", etag)], 304, None, ""),
            ("HEAD", &[("if-none-match", etag)], 304, None, ""),
            ("GET", &[("if-none-match", "*")], 304, None, ""),
            ("GET", &[("if-none-match", "\"x\"")], 200, None, "GIF89a"),
            (
                "GET",
                &[("if-none-match", etag), ("range", "bytes=1-3")],
                304,
                None,
                "",
            ),
            (
                "GET",
                &[("if-range", etag), ("range", "bytes=1-3")],
                206,
                Some("bytes 1-3/6"),
                "IF8",
            ),
            (
                "GET",
                &[("if-range", "\"x\""), ("range", "bytes=1-3")],
                200,
                None,
                "GIF89a",
            ),
            (
                "GET",
                &[("if-range", "W/\"x\""), ("range", "bytes=1-3")],
                200,
                None,
                "GIF89a",
            ),
        ] {
            let response = get(method, fields);
            let row = format!("{}: {method} {fields:?}: {response}", self.lang);
            assert!(
                response.starts_with(&format!("HTTP/1.1 {status} ")),
                "{row}"
            );
            assert_eq!(field(&response, "content-range"), content_range, "{row}");
            let (_, body) = response.split_once("\r\n\r\n").unwrap();
            assert!(
                body.starts_with(content) && body.is_empty() == content.is_empty(),
                "{row}"
            );
            if status != 416 {
                assert_eq!(field(&response, "etag"), Some(etag), "{row}");
            }
        }
    }

    async fn assert_charged(&self) {
        let source = Source::from_file(self.component().as_ref()).unwrap();
        let size: bytesize::ByteSize = self.request_memory().parse().unwrap();
        let memory = usize::try_from(size.as_u64()).unwrap();
        let taken = instance::of_waiting_guest(&source, memory).await;
        taken.assert_charged(self.lang);
    }
}

/// The guest in Rust adds two routes and a header to those of `millpond-guest`.
fn assert_has_its_own_rules(server: &Server) {
    let welcome = server.get("/");
    assert!(welcome.starts_with("HTTP/1.1 200 "), "{welcome}");
    assert!(
        welcome.ends_with("Media is at /media/<name>.\n"),
        "{welcome}"
    );
    let intro = server.get("/intro");
    assert!(intro.starts_with("HTTP/1.1 404 "), "{intro}");
    let several = [("range", "bytes=0-0,5-5")];
    let several = server.ask_with("GET", "/media/a%20b.gif", &several);
    assert!(several.starts_with("HTTP/1.1 206 "), "{several}");
    for response in [welcome, intro, several] {
        assert_eq!(field(&response, "x-served-by"), Some("media-guest"));
    }
}

/// The value of a field of a response.
fn field<'a>(response: &'a str, name: &str) -> Option<&'a str> {
    let (head, _) = response.split_once("\r\n\r\n")?;
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.find_map(|(found, value)| (found == name).then_some(value))
}

fn millpond(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millpond"));
    command.args(arguments).output().unwrap()
}

fn assert_succeeds(output: &Output, what: &[&str]) {
    assert!(output.status.success(), "{what:?}: {output:?}");
}

/// Runs commands of the shell in a folder, with the tools that `cargo xtask hosts --install` has installed.
fn run(folder: &Path, commands: &str) {
    let mut path = vec![installed("bin"), installed("venv/bin")];
    let mut shell = Command::new("sh");
    shell.args(["-euc", commands]).current_dir(folder);
    if let Some(linker) = debians_linker() {
        // Debian's toolchain, which builds the standard library from source, as `cargo xtask guest` has it.
        path.push("/usr/bin".into());
        shell
            .env("RUSTC", "/usr/bin/rustc")
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_UNSTABLE_BUILD_STD", "std,panic_abort")
            .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
    }
    let before = std::env::var_os("PATH").unwrap_or_default();
    path.extend(std::env::split_paths(&before));
    shell.env("PATH", std::env::join_paths(path).unwrap());
    // Removes the variables of the cargo that runs this test.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name == "CARGO" || name == "RUSTUP_TOOLCHAIN" || name.ends_with("RUSTFLAGS") {
            shell.env_remove(name);
        }
    }
    let output = shell.output().unwrap();
    assert_succeeds(&output, &[commands]);
}

/// The linker of Debian's toolchain for WebAssembly, where the active toolchain is none.
fn debians_linker() -> Option<PathBuf> {
    let mut rustc = Command::new("rustc");
    rustc.args([
        "--print",
        "target-libdir",
        "--target",
        "wasm32-unknown-unknown",
    ]);
    let libraries = String::from_utf8(rustc.output().ok()?.stdout).ok()?;
    if !libraries.trim().is_empty() && Path::new(libraries.trim()).exists() {
        return None;
    }
    let linkers = (15..30)
        .rev()
        .map(|version| PathBuf::from(format!("/usr/bin/wasm-ld-{version}")));
    linkers.into_iter().find(|linker| linker.exists())
}

async fn misbehaving(component: &str) -> Host {
    let host = Host::start_with(Setup {
        source: Source::from_file(component.as_ref()).unwrap(),
        limits: with(|limits: &mut Limits| {
            limits.memory_bytes = 4 << 30;
            limits.request_memory_bytes = 64 << 20;
            // A request of a language runtime takes its time on a busy machine.
            limits.cpu = Duration::from_secs(2);
        }),
        ..Setup::default()
    })
    .await;
    host.write("small.txt", b"small");
    host
}

/// It gets that, while others are answered.
async fn assert_ended(host: &Host, target: &str, status: u16, message: &str) {
    let limited = host.registry().ended_requests(Outcome::Limited);
    let others = async {
        for _ in 0..20 {
            let response = host.get("/media/small.txt").await;
            assert_eq!((response.status, &response.body[..]), (200, &b"small"[..]));
        }
    };
    let (ended, ()) = tokio::join!(host.get(target), others);
    assert_eq!(
        (ended.status, ended.error()),
        (status, message.into()),
        "{target}"
    );
    host.registry().idle().await;
    assert_eq!(
        host.registry().ended_requests(Outcome::Limited),
        limited + 1,
        "{target}"
    );
}
