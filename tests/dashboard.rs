//! The admin listener's page: its files, its events, who gets them, and how it looks to a browser.

use crate::players::Browser;
use crate::server::Server;
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

const TOKEN: &str = "a-token-for-tests-0123";

/// Every file of the page.
const FILES: [&str; 5] = [
    "/",
    "/dashboard",
    "/dashboard.css",
    "/dashboard.js",
    "/icon.svg",
];

/// Sends a head, with content behind it, and returns the whole answer.
fn ask(address: &str, head: &str, content: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let length = content.len();
    let request = format!("{head}content-length: {length}\r\nconnection: close\r\n\r\n{content}");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

fn get(address: &str, target: &str, fields: &str) -> String {
    let head = format!("GET {target} HTTP/1.1\r\nhost: {address}\r\n{fields}");
    ask(address, &head, "")
}

fn status(answer: &str) -> u16 {
    crate::client::status(answer.as_bytes()).unwrap()
}

fn served() -> (tempfile::TempDir, Server) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.txt"), "hello").unwrap();
    let server = Server::start(folder.path(), &["--admin", "127.0.0.1:0"]);
    (folder, server)
}

#[test]
fn the_page_has_files_of_its_own_only_under_a_strict_policy() {
    let (_folder, server) = served();
    for path in FILES {
        let answer = get(&server.admin, path, "");
        let (head, content) = answer.split_once("\r\n\r\n").unwrap();
        assert_eq!(status(&answer), 200, "{path}");
        for field in [
            "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self';",
            "x-content-type-options: nosniff",
            "cache-control: no-store",
        ] {
            assert!(head.contains(field), "{path}: {head}");
        }
        assert!(!head.contains("unsafe-inline"), "{head}");
        let others = content.replace("http://www.w3.org/2000/svg", "");
        for inline in [
            "http://",
            "https://",
            "<style",
            " style=",
            " onclick=",
            "<script>",
        ] {
            assert!(!others.contains(inline), "{path} has {inline}");
        }
    }
    assert_eq!(status(&get(&server.admin, "/none", "")), 404);
}

/// A client of `/events`.
struct Watcher(BufReader<TcpStream>);

impl Watcher {
    fn connect(address: &str, fields: &str) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        let head = format!("GET /events HTTP/1.1\r\nhost: {address}\r\n{fields}\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        Watcher(BufReader::new(stream))
    }

    fn status(&mut self) -> u16 {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        crate::client::status(line.as_bytes()).unwrap()
    }

    /// Returns the id, if it has one, and the data of the next event of that name.
    fn next(&mut self, name: &str) -> (String, Value) {
        let (mut id, mut is_wanted) = (String::new(), false);
        loop {
            let mut line = String::new();
            assert!(
                self.0.read_line(&mut line).unwrap() > 0,
                "the events have ended"
            );
            if let Some(value) = line.strip_prefix("id: ") {
                id = value.trim().to_owned();
            } else if let Some(value) = line.strip_prefix("event: ") {
                is_wanted = value.trim() == name;
            } else if let Some(data) = line.strip_prefix("data: ").filter(|_| is_wanted) {
                return (id, serde_json::from_str(data).unwrap());
            }
        }
    }
}

#[test]
fn the_events_are_the_history_and_then_a_second_each() {
    let (_folder, server) = served();
    for target in ["/media/a.txt", "/media/a.txt?x", "/media/none"] {
        server.get(target);
    }
    let mut watcher = Watcher::connect(&server.admin, "");
    assert_eq!(watcher.status(), 200);
    let (_, about) = watcher.next("about");
    assert_eq!(about["version"], env!("CARGO_PKG_VERSION"));
    assert!(about["memory_plan"]["limit_bytes"].as_u64() > Some(0));
    let (mut completed, mut sent) = (0, 0);
    let (id, state) = loop {
        let (id, event) = watcher.next("second");
        let second = &event["second"];
        assert!(
            second["held_bytes"].as_u64() >= second["fixed_bytes"].as_u64(),
            "{event}"
        );
        completed += second["outcomes"][0].as_u64().unwrap();
        sent += second["sent_bytes"].as_u64().unwrap();
        if completed == 3 && event["state"].is_object() {
            break (id, event["state"].clone());
        }
    };
    assert!(sent >= 10, "{sent}");
    let top = &state["top_targets"][0];
    assert_eq!(
        (&top["path"], &top["bytes"]),
        (&"/media/a.txt".into(), &10.into())
    );
    assert_eq!(state["top_targets"].as_array().unwrap().len(), 1, "{state}");
    assert_eq!(state["verdict"]["state"], "steady", "{state}");
    assert_eq!(
        (&state["unready"], &state["certificate"]),
        (&Value::Null, &Value::Null)
    );

    // A browser that connects again gets what it has not.
    let (start, number) = id.split_once('-').unwrap();
    let next = format!("{start}-{}", number.parse::<u64>().unwrap() + 1);
    let mut again = Watcher::connect(&server.admin, &format!("last-event-id: {id}\r\n"));
    assert_eq!(again.next("second").0, next);
}

#[test]
fn watchers_are_bounded_and_those_that_read_nothing_delay_nobody() {
    let (_folder, server) = served();
    let mut watchers: Vec<_> = (0..8)
        .map(|_| Watcher::connect(&server.admin, ""))
        .collect();
    for watcher in &mut watchers {
        assert_eq!(watcher.status(), 200);
    }
    let mut last = watchers.pop().unwrap();
    let refused = get(&server.admin, "/events", "");
    assert_eq!(status(&refused), 503);
    assert!(refused.contains("retry-after: 5"), "{refused}");
    // The other seven read nothing.
    for _ in 0..3 {
        last.next("second");
    }
    assert_eq!(status(&get(&server.admin, "/metrics", "")), 200);
    drop(watchers);
    while Watcher::connect(&server.admin, "").status() != 200 {
        last.next("second");
    }
}

#[test]
fn the_token_is_asked_for_and_a_browser_gets_a_cookie_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let listen = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let by_variable = [("MILLPOND_ADMIN_TOKEN", TOKEN)];
    let by_file = ["--admin-token-file", file.to_str().unwrap()];
    for server in [
        Server::listening_as_told(folder.path(), &by_variable, &listen),
        Server::listening_as_told(folder.path(), &[], &[&listen[..], &by_file].concat()),
    ] {
        let at = &server.admin;
        // The files of the page have no figures, and a local Prometheus needs no token.
        for path in [
            "/healthz",
            "/readyz",
            "/metrics",
            "/login",
            "/dashboard.css",
        ] {
            let expected = if path == "/login" { 401 } else { 200 };
            assert_eq!(status(&get(at, path, "")), expected, "{path}");
        }
        let bearer = format!("authorization: Bearer {TOKEN}\r\n");
        let wrong = "authorization: Bearer a-token-for-tests-0124\r\n";
        for path in ["/", "/memory", "/requests", "/none"] {
            let refused = get(at, path, "");
            assert_eq!(status(&refused), 401, "{path}");
            assert!(
                refused.contains("www-authenticate: Bearer realm=\"millpond\""),
                "{refused}"
            );
            assert_eq!(status(&get(at, path, wrong)), 401, "{path}");
            let expected = if path == "/none" { 404 } else { 200 };
            assert_eq!(status(&get(at, path, &bearer)), expected, "{path}");
        }
        let form = get(at, "/", "accept: text/html,*/*\r\n");
        assert!(form.contains("<form") && status(&form) == 401, "{form}");

        let post = |token: &str| {
            let head = format!("POST /login HTTP/1.1\r\nhost: {at}\r\norigin: http://{at}\r\n");
            ask(at, &head, &format!("token={token}"))
        };
        let refused = post("a-token-for-tests-0124");
        assert_eq!(status(&refused), 401);
        assert!(refused.contains("role=\"alert\"") && !refused.contains("set-cookie"));
        assert_eq!(status(&post(&"a".repeat(5000))), 413);
        let allowed = post(TOKEN);
        assert_eq!(status(&allowed), 303, "{allowed}");
        let cookie = allowed
            .lines()
            .find_map(|line| line.strip_prefix("set-cookie: "));
        let cookie = cookie.unwrap();
        assert!(
            cookie.ends_with("; Path=/; HttpOnly; SameSite=Strict"),
            "{cookie}"
        );
        assert!(!cookie.contains(TOKEN));
        let cookie = cookie.split_once(';').unwrap().0;
        let cookie = format!("cookie: {cookie}\r\n");
        assert_eq!(status(&get(at, "/", &cookie)), 200);
        assert_eq!(Watcher::connect(at, &cookie).status(), 200);
    }
}

#[test]
fn a_name_or_a_page_of_another_site_gets_nothing() {
    let (_folder, server) = served();
    let at = &server.admin;
    let named = |host: &str, path: &str| {
        let head = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n");
        status(&ask(at, &head, ""))
    };
    for path in [
        "/",
        "/events",
        "/memory",
        "/requests",
        "/metrics",
        "/login",
        "/dashboard.js",
    ] {
        assert_eq!(named("evil.example", path), 421, "{path}");
    }
    assert_eq!(named("evil.example", "/healthz"), 200);
    assert_eq!(named("localhost:1234", "/memory"), 200);
    for origin in ["https://evil.example", "null"] {
        let fields = format!("origin: {origin}\r\n");
        assert_eq!(status(&get(at, "/memory", &fields)), 403, "{origin}");
    }
    let allowed = format!("origin: http://{at}\r\n");
    assert_eq!(status(&get(at, "/memory", &allowed)), 200);
    let post = format!("POST /memory HTTP/1.1\r\nhost: {at}\r\n");
    let refused = ask(at, &post, "");
    assert_eq!(status(&refused), 405);
    assert!(refused.contains("allow: GET, HEAD\r\n"), "{refused}");
}

/// Sets a flag when it is dropped, after a failure too.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_leak_is_shown_with_the_route_that_grows() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.gif"), "GIF89a").unwrap();
    let tests = std::env::current_exe().unwrap();
    let built = tests.parent().unwrap().parent().unwrap();
    let mut leaks = Command::new(built.join("examples/leaks"))
        .arg("token")
        .arg(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut printed = BufReader::new(leaks.stdout.take().unwrap()).lines();
    let mut line = || printed.next().unwrap().unwrap();
    let (address, admin) = (line(), line());
    let admin = admin.strip_prefix("admin http://").unwrap();
    let mut watcher = Watcher::connect(admin, "");
    let is_shown = AtomicBool::new(false);
    let verdict = std::thread::scope(|scope| {
        let _end = SetOnDrop(&is_shown);
        scope.spawn(|| {
            while !is_shown.load(Ordering::Relaxed) {
                get(&address, "/media/a.gif", "");
            }
        });
        loop {
            let (_, event) = watcher.next("second");
            let verdict = &event["state"]["verdict"];
            if verdict["state"] == "growing" {
                break verdict.clone();
            }
        }
    });
    leaks.kill().unwrap();
    leaks.wait().unwrap();
    let text = verdict["text"].as_str().unwrap();
    assert!(text.starts_with("Memory has grown since 20"), "{verdict}");
    let details = verdict["details"].as_array().unwrap();
    let route = details[1].as_str().unwrap();
    assert!(route.starts_with("Route /media/*.gif: "), "{verdict}");
    assert!(route.contains("ended requests leaked"), "{verdict}");
}

/// Version of axe that is run. A later one may have other rules.
const AXE: &str = "axe-core@4.14.1";

/// Returns the script of axe, which npm installs once.
fn axe() -> &'static str {
    static SCRIPT: OnceLock<String> = OnceLock::new();
    SCRIPT.get_or_init(install_axe)
}

fn install_axe() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/axe");
    let script = folder.join("node_modules/axe-core/axe.min.js");
    if !script.exists() {
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("package.json"), "{\"private\": true}").unwrap();
        let options = ["--no-audit", "--no-fund", "--ignore-scripts"];
        let mut npm = Command::new("npm");
        npm.arg("install")
            .args(options)
            .arg(AXE)
            .current_dir(&folder);
        assert!(npm.status().unwrap().success(), "npm cannot install {AXE}");
    }
    fs::read_to_string(script).unwrap()
}

/// Waits until the page has figures, then returns what axe finds and what the page is like.
const INSPECTION: &str = "
    const done = arguments[arguments.length - 1];
    (async () => {
        while (!document.title.includes(' of ') || !document.querySelector('#requests tr')) {
            await new Promise(resolve => setTimeout(resolve, 50));
        }
        document.querySelector('details').open = true;
        const { violations } = await axe.run(document, { resultTypes: ['violations'] });
        done({
            violations: violations.map(({ id, nodes }) => [id, nodes.map(node => node.html + node.failureSummary)]),
            verdict: document.querySelector('#verdict-text').textContent,
            charts: [...document.querySelectorAll('svg')].map(svg => svg.getAttribute('aria-label')),
            dark: matchMedia('(prefers-color-scheme: dark)').matches,
            overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
            width: innerWidth,
        });
    })().catch(error => done({ error: String(error) }));
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs chromium, chromedriver and npm"]
async fn axe_finds_no_violation_light_dark_and_on_a_phone() {
    let axe = tokio::task::spawn_blocking(axe).await.unwrap();
    let (_folder, server) = served();
    for target in ["/media/a.txt", "/media/none"] {
        server.get(target);
    }
    let url = format!("http://{}/", server.admin);
    // Blink's numbers of the two colour schemes.
    for (scheme, width) in [(1, 1240), (0, 1240), (1, 500), (0, 500)] {
        let scheme_argument = format!("--blink-settings=preferredColorScheme={scheme}");
        let size = format!("--window-size={width},900");
        let browser = Browser::start_with(&[&scheme_argument, &size]).await;
        browser.client.goto(&url).await.unwrap();
        browser.client.execute(axe, vec![]).await.unwrap();
        let found = browser
            .client
            .execute_async(INSPECTION, vec![])
            .await
            .unwrap();
        assert_eq!(found["error"], Value::Null);
        assert_eq!(found["violations"], Value::Array(vec![]), "{found}");
        assert_eq!(found["dark"], scheme == 0, "{found}");
        assert_eq!(found["overflow"], 0, "{found}");
        let charts = found["charts"].as_array().unwrap();
        assert_eq!(charts.len(), 6, "{found}");
        for chart in charts {
            assert!(chart.as_str().unwrap().contains("Now: "), "{found}");
        }
        let picture = browser.client.screenshot().await.unwrap();
        let path: PathBuf = [
            env!("CARGO_TARGET_TMPDIR"),
            &format!("dashboard-{scheme}-{width}.png"),
        ]
        .iter()
        .collect();
        fs::write(&path, picture).unwrap();
        println!("screenshot: {}", path.display());
        browser.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs chromium, chromedriver and npm"]
async fn a_browser_signs_in_and_sees_the_figures() {
    let axe = tokio::task::spawn_blocking(axe).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let listen = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let variables = [("MILLPOND_ADMIN_TOKEN", TOKEN)];
    let server = Server::listening_as_told(folder.path(), &variables, &listen);
    let browser = Browser::start().await;
    let client = &browser.client;
    client
        .goto(&format!("http://{}/", server.admin))
        .await
        .unwrap();
    client.execute(axe, vec![]).await.unwrap();
    let script =
        "axe.run(document).then(({ violations }) => arguments[0](violations.map(({ id }) => id)))";
    let found = client.execute_async(script, vec![]).await.unwrap();
    assert_eq!(found, Value::Array(vec![]));
    let field = fantoccini::Locator::Css("#token");
    client
        .find(field)
        .await
        .unwrap()
        .send_keys(TOKEN)
        .await
        .unwrap();
    let button = fantoccini::Locator::Css("button");
    client.find(button).await.unwrap().click().await.unwrap();
    let connection = fantoccini::Locator::Css("#connection.live");
    client.wait().for_element(connection).await.unwrap();
    browser.stop().await;
}
