//! The program as a child process, for tests of what only a whole process has: signals, exit codes, its memory.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

/// A running server, and the URL that it printed.
pub(crate) struct Server {
    child: Child,
    log: Arc<Log>,
    reader: Option<JoinHandle<()>>,
    pub(crate) address: String,
    pub(crate) admin: String,
    pub(crate) announced: String,
}

/// Log of the server so far. A thread reads it all the time, so that the server never waits.
#[derive(Default)]
struct Log {
    text: Mutex<(String, bool)>,
    grew: Condvar,
}

impl Server {
    pub(crate) fn start(folder: &Path, arguments: &[&str]) -> Self {
        Server::start_logging_to(Stdio::piped(), folder, arguments)
    }

    /// With its log to there; it is read only where that is a pipe of ours.
    pub(crate) fn start_logging_to(stderr: Stdio, folder: &Path, arguments: &[&str]) -> Self {
        let listen = ["--listen", "127.0.0.1:0"];
        let mut server = Server::spawn(stderr, folder, &[&listen, arguments].concat());
        server.wait_until_ready();
        server
    }

    /// One that listens where these variables and arguments say.
    pub(crate) fn listening_as_told(
        folder: &Path,
        variables: &[(&str, &str)],
        arguments: &[&str],
    ) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_millpond"));
        command.args(["serve", folder.to_str().unwrap()]);
        command.envs(variables.iter().copied());
        Server::started_by(&mut command, arguments)
    }

    /// One that a command with these arguments starts.
    pub(crate) fn started_by(command: &mut Command, arguments: &[&str]) -> Self {
        let mut server = Server::spawned_by(command.args(arguments), Stdio::piped());
        server.wait_until_ready();
        server
    }

    /// One that has begun to start.
    pub(crate) fn spawn(stderr: Stdio, folder: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_millpond"));
        command.args(["serve", folder.to_str().unwrap()]);
        Server::spawned_by(command.args(arguments), stderr)
    }

    fn spawned_by(command: &mut Command, stderr: Stdio) -> Self {
        let command = command.stdout(Stdio::piped()).stderr(stderr);
        let mut child = command.spawn().unwrap();
        let log: Arc<Log> = Arc::default();
        let reader = child.stderr.take().map(|stderr| {
            let log = Arc::clone(&log);
            std::thread::spawn(move || log.read(BufReader::new(stderr)))
        });
        Server {
            address: String::new(),
            admin: String::new(),
            child,
            log,
            reader,
            announced: String::new(),
        }
    }

    /// Reads what it prints when it is ready.
    fn wait_until_ready(&mut self) {
        let mut announced = String::new();
        for line in BufReader::new(self.child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            announced += &line;
            announced.push('\n');
            if line.trim_start().starts_with("request") {
                break;
            }
        }
        let url = |name: &str| {
            let mut lines = announced.lines();
            let url = lines.find_map(|line| line.trim().strip_prefix(name))?;
            Some(url.trim().split_once("://")?.1.to_owned())
        };
        assert!(announced.contains("  request"), "the server ended at once");
        // Without one, it listens on a UNIX domain socket only.
        self.address = url("listening").unwrap_or_default();
        self.admin = url("admin").unwrap_or_default();
        self.announced = announced;
    }

    pub(crate) fn process_id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn get(&self, target: &str) -> String {
        get(&self.address, target)
    }

    pub(crate) fn ask_for(&self, method: &str, target: &str) -> String {
        self.ask_with(method, target, &[])
    }

    /// The response to a request with more fields.
    pub(crate) fn ask_with(&self, method: &str, target: &str, fields: &[(&str, &str)]) -> String {
        let response = exchange_by(method, &self.address, target, fields);
        String::from_utf8_lossy(&response).into_owned()
    }

    /// Status and content.
    pub(crate) fn answer(&self, target: &str) -> (u16, Vec<u8>) {
        let mut content = exchange(&self.address, target);
        let head = content.windows(4).position(|bytes| bytes == b"\r\n\r\n");
        let head: Vec<u8> = content.drain(..head.unwrap() + 4).collect();
        (crate::client::status(&head).unwrap(), content)
    }

    /// Returns the admin listener's response to a target.
    pub(crate) fn ask(&self, target: &str) -> serde_json::Value {
        let answer = get(&self.admin, target);
        let (_, content) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(content).unwrap()
    }

    /// Returns the admin listener's whole response to a target.
    pub(crate) fn get_admin(&self, target: &str) -> String {
        get(&self.admin, target)
    }

    /// Posts to the admin listener. Returns status and content, as a JSON string if it is plain text.
    pub(crate) fn post_admin(
        &self,
        target: &str,
        fields: &[(&str, &str)],
    ) -> (u16, serde_json::Value) {
        let answer = exchange_by("POST", &self.admin, target, fields);
        let status = crate::client::status(&answer).unwrap();
        let head = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
        let content = &answer[head.unwrap() + 4..];
        let text = || String::from_utf8_lossy(content).into_owned().into();
        (
            status,
            serde_json::from_slice(content).unwrap_or_else(|_| text()),
        )
    }

    /// Waits for a line of the log with that in it.
    pub(crate) fn wait_for_log(&self, wanted: &str) -> String {
        let mut log = self.log.text.lock().unwrap();
        loop {
            if let Some(line) = log.0.lines().find(|line| line.contains(wanted)) {
                return line.to_owned();
            }
            assert!(!log.1, "the server ended without {wanted:?}: {}", log.0);
            log = self.log.grew.wait(log).unwrap();
        }
    }

    /// Returns its log so far.
    pub(crate) fn logged(&self) -> String {
        self.log.text.lock().unwrap().0.clone()
    }

    #[cfg(unix)]
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, signal).unwrap();
    }

    /// Asks it to stop, and returns its exit code and its log.
    #[cfg(unix)]
    pub(crate) fn stop(self) -> (Option<i32>, String) {
        self.signal(rustix::process::Signal::TERM);
        self.wait()
    }

    /// Waits for its end, and returns its exit code and its log.
    #[cfg(unix)]
    pub(crate) fn wait(mut self) -> (Option<i32>, String) {
        let code = self.child.wait().unwrap().code();
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        let log = self.log.text.lock().unwrap().0.clone();
        (code, log)
    }
}

impl Log {
    fn read(&self, stderr: impl BufRead) {
        for line in stderr.lines() {
            let mut log = self.text.lock().unwrap();
            log.0 += &line.unwrap();
            log.0.push('\n');
            self.grew.notify_all();
        }
        self.text.lock().unwrap().1 = true;
        self.grew.notify_all();
    }
}

fn get(address: &str, target: &str) -> String {
    String::from_utf8_lossy(&exchange(address, target)).into_owned()
}

/// Asks once, and returns all that comes back.
pub(crate) fn exchange(address: &str, target: &str) -> Vec<u8> {
    exchange_by("GET", address, target, &[])
}

/// The same, by another method and with more fields.
pub(crate) fn exchange_by(
    method: &str,
    address: &str,
    target: &str,
    fields: &[(&str, &str)],
) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    let fields: String = fields
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let head = format!(
        "{method} {target} HTTP/1.1\r\nhost: {address}\r\n{fields}connection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
