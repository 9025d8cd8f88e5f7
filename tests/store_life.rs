//! The life of a store by commands: `add` of many files, `ls`, `rm`, `publish`, `unpublish`, `check --repair`, `sign`.

use crate::host::noise;
use crate::server::Server;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

struct Store {
    folder: tempfile::TempDir,
}

impl Store {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("source")).unwrap();
        Store { folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    fn source(&self) -> PathBuf {
        self.folder.path().join("source")
    }

    fn write(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.source().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_millpond"));
        command.arg(name).env("MILLPOND_DIR", self.path());
        command
    }

    fn run(&self, name: &str, arguments: &[&str]) -> Output {
        self.command(name).args(arguments).output().unwrap()
    }

    /// Runs a command that has to succeed, and returns its lines of JSON.
    fn json(&self, name: &str, arguments: &[&str]) -> Vec<serde_json::Value> {
        let output = self.run(name, &[arguments, &["--json"]].concat());
        assert!(output.status.success(), "{output:?}");
        let lines = stdout(&output).lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    fn add(&self, name: &str, content: &[u8], arguments: &[&str]) -> String {
        let path = self.write(name, content);
        let added = self.json("add", &[&[path.to_str().unwrap()], arguments].concat());
        id(&added[0])
    }

    fn listed(&self) -> Vec<String> {
        self.json("ls", &[]).iter().map(id).collect()
    }
}

fn id(line: &serde_json::Value) -> String {
    line["id"].as_str().unwrap().to_owned()
}

fn stdout(output: &Output) -> &str {
    str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    str::from_utf8(&output.stderr).unwrap()
}

#[test]
fn media_is_listed_in_order_and_by_what_is_asked() {
    let store = Store::new();
    let small = store.add("a.txt", b"small", &[]);
    let large = store.add(
        "b.png",
        &[b"\x89PNG\r\n\x1a\n", &noise(5000)[..]].concat(),
        &["--private"],
    );
    let variant = store.add("c.txt", b"variant", &["--variant-of", &small]);
    let mut by_id = vec![small.clone(), large.clone(), variant.clone()];
    by_id.sort_unstable();
    assert_eq!(store.listed(), by_id);
    for (field, expected) in [
        ("created", [&variant, &large, &small]),
        ("size", [&large, &variant, &small]),
    ] {
        let listed: Vec<_> = store
            .json("ls", &["--sort", field])
            .iter()
            .map(id)
            .collect();
        assert!(listed.iter().eq(expected), "{field}: {listed:?}");
    }
    assert_eq!(id(&store.json("ls", &["--sort", "type"])[0]), large);
    let lines = store.json("ls", &[]);
    let line = lines.iter().find(|line| id(line) == small).unwrap();
    assert_eq!(line["path"], format!("/api/media/{small}"));
    assert_eq!(
        (&line["size"], &line["access"]),
        (&5.into(), &"public".into())
    );
    assert_eq!(line["variants"][0]["id"], variant);
    assert!(line["created"].as_str().unwrap().ends_with('Z'));
    let people = store.run("ls", &[]);
    let line = stdout(&people)
        .lines()
        .find(|line| line.starts_with(&large))
        .unwrap();
    assert!(
        line.contains("  image/png  5008  20") && line.ends_with("  private"),
        "{line}"
    );
    let line = stdout(&people)
        .lines()
        .find(|line| line.starts_with(&small))
        .unwrap();
    assert!(line.ends_with("  public  1 variant"), "{line}");
}

#[test]
fn a_list_tells_what_is_not_served_and_needs_no_reader() {
    let store = Store::new();
    let good = store.add("a.txt", b"good", &[]);
    let bad = store.add("b.txt", b"bad", &[]);
    fs::write(
        store.path().join(&bad[..2]).join(format!("{bad}.json")),
        "{",
    )
    .unwrap();
    let listed = store.run("ls", &[]);
    assert_eq!(listed.status.code(), Some(1));
    assert!(stdout(&listed).starts_with(&good) && stdout(&listed).lines().count() == 1);
    assert!(
        stderr(&listed).contains(&format!("{bad}.json: the record is corrupt")),
        "{listed:?}"
    );
    let missing = store.run("ls", &["/none/at/all"]);
    assert_eq!(missing.status.code(), Some(2), "{missing:?}");
    assert!(stderr(&missing).contains("cannot list the store /none/at/all"));
    // Nobody reads the list.
    let mut child = store
        .command("ls")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(!stderr(&output).contains("Broken pipe"), "{output:?}");
}

#[test]
fn removed_media_is_gone_for_everyone_who_pointed_to_it() {
    let store = Store::new();
    let original = store.add("a.txt", b"original", &[]);
    let variant = store.add("b.txt", b"variant", &["--variant-of", &original]);
    let own = store.add("c.txt", b"of the variant", &["--variant-of", &variant]);
    let server = Server::start(&store.path(), &["--open-file-cache-valid", "0s"]);
    let path = format!("/api/media/{variant}");
    assert!(server.get(&path).contains(" 200 "));
    let removed = store.run("rm", &[&variant]);
    assert!(removed.status.success(), "{removed:?}");
    assert!(
        stdout(&removed).starts_with(&format!("{variant}  removed  ")),
        "{removed:?}"
    );
    let told = stderr(&removed);
    assert!(
        told.contains(&format!("{original} had the variant {variant}")),
        "{told}"
    );
    assert!(told.contains(&format!("its variant {own} stays")), "{told}");
    assert!(server.get(&path).contains(" 404 "));
    let mut left = vec![original.clone(), own.clone()];
    left.sort_unstable();
    assert_eq!(store.listed(), left);
    let check = store.run("check", &[]);
    assert!(check.status.success(), "{check:?}");
    // Media that is there is removed, and the rest is told.
    let rest = store.run("rm", &[&variant, &original, &original, &own]);
    assert_eq!(rest.status.code(), Some(1));
    assert_eq!(stdout(&rest).lines().count(), 2, "{rest:?}");
    assert!(stderr(&rest).contains(&format!("there is no media {variant}")));
    assert!(store.listed().is_empty());
    let nowhere = store.run("rm", &["--store", "/none/at/all", &own]);
    assert_eq!(nowhere.status.code(), Some(2), "{nowhere:?}");
    assert!(!Path::new("/none").exists());
}

#[test]
fn media_is_published_and_unpublished_with_its_variants() {
    let store = Store::new();
    let original = store.add("a.txt", b"original", &[]);
    let variant = store.add("b.txt", b"variant", &["--variant-of", &original]);
    let access = || -> Vec<String> {
        let lines = [&original, &variant].map(|id| {
            let lines = store.json("ls", &[]);
            lines.into_iter().find(|line| line["id"] == **id).unwrap()
        });
        lines
            .map(|line| line["access"].as_str().unwrap().to_owned())
            .into()
    };
    let unpublished = store.run("unpublish", &[&original]);
    assert!(unpublished.status.success(), "{unpublished:?}");
    assert!(stdout(&unpublished).contains("  private  (was public)"));
    assert!(
        stderr(&unpublished).contains(&format!("variant {variant} was public and is now private"))
    );
    assert_eq!(access(), ["private", "private"]);
    let again = store.json("unpublish", &[&original]);
    assert_eq!(again[0]["access_before"], "private");
    assert!(store.run("publish", &[&original]).status.success());
    assert_eq!(access(), ["public", "private"]);
    assert!(store.run("unpublish", &[&original]).status.success());
    let published = store.json("publish", &["--with-variants", &original]);
    assert_eq!(
        published.iter().map(id).collect::<Vec<_>>(),
        [&*original, &*variant]
    );
    assert_eq!(access(), ["public", "public"]);
    let missing = store.run("unpublish", &[&"0".repeat(64)]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(
        stderr(&missing).contains("there is no media 000"),
        "{missing:?}"
    );
}

#[test]
fn a_repair_prints_each_action_and_deletes_no_content() {
    let store = Store::new();
    let good = store.add("a.txt", b"good", &[]);
    let changed = store.add("b.txt", b"changed", &[]);
    let unrecorded = store.add("c.txt", b"unrecorded", &[]);
    let content = |id: &str| store.path().join(&id[..2]).join(id);
    fs::write(content(&changed), "Changed").unwrap();
    fs::remove_file(content(&unrecorded).with_extension("json")).unwrap();
    let left = store.path().join(".incoming/.tmpLEFT");
    fs::write(&left, "left").unwrap();
    // Without the option nothing is touched.
    let check = store.run("check", &[]);
    assert_eq!(check.status.code(), Some(1));
    assert!(left.exists() && content(&changed).exists());

    let repaired = store.run("check", &["--repair"]);
    assert!(repaired.status.success(), "{repaired:?}");
    let told = stderr(&repaired);
    assert!(told.contains("another digest: "), "{told}");
    assert!(
        told.contains(&format!(": moved to .lost+found/{changed}\n")),
        "{told}"
    );
    assert!(
        told.contains("the record is missing: wrote a new record, as private media"),
        "{told}"
    );
    assert!(told.contains("left") || told.contains(".tmpLEFT"), "{told}");
    assert!(stdout(&repaired).ends_with(" 3 repaired\n"), "{repaired:?}");
    assert!(!left.exists());
    let aside = store.path().join(".lost+found");
    assert_eq!(fs::read(aside.join(&changed)).unwrap(), b"Changed");
    let reason = fs::read_to_string(aside.join(format!("{changed}.reason"))).unwrap();
    assert!(reason.contains("another digest"), "{reason}");

    let mut listed = vec![good, unrecorded];
    listed.sort_unstable();
    assert_eq!(store.listed(), listed);
    let check = store.run("check", &[]);
    assert!(check.status.success(), "{check:?}");
    // A file that lies aside is not served.
    let server = Server::start(&store.path(), &[]);
    assert!(
        server
            .get(&format!("/media/.lost+found/{changed}"))
            .contains(" 404 ")
    );
    // A store that is not there is not made.
    let missing = store.run("check", &["--repair", "/none/at/all"]);
    assert_eq!(missing.status.code(), Some(2), "{missing:?}");
}

#[test]
fn whole_urls_are_signed_for_several_paths() {
    let sign = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_millpond"));
        command.arg("sign").args(arguments);
        command.env("MILLPOND_SIGNING_KEYS", format!("k1:{}", "ab".repeat(32)));
        command.output().unwrap()
    };
    let signed = sign(&[
        "--base",
        "https://media.example/pond/",
        "/api/media/a",
        "/media/b.gif",
    ]);
    assert!(signed.status.success(), "{signed:?}");
    let lines: Vec<_> = stdout(&signed).lines().collect();
    assert!(
        lines[0].starts_with("https://media.example/pond/api/media/a?exp="),
        "{lines:?}"
    );
    assert!(
        lines[1].starts_with("https://media.example/pond/media/b.gif?exp="),
        "{lines:?}"
    );
    for base in [
        "media.example",
        "ftp://a",
        "https://",
        "https://a/?b",
        "https://u@a",
        "/a",
    ] {
        let refused = sign(&["--base", base, "/api/media/a"]);
        assert_eq!(refused.status.code(), Some(2), "{base}");
        assert!(stderr(&refused).contains("a URL is needed"), "{refused:?}");
    }
}

#[test]
fn many_files_are_added_at_a_time_and_told_in_their_order() {
    const FILES: usize = 300;
    let store = Store::new();
    for number in 0..FILES {
        // The first of each folder takes longest.
        let length = if number % 100 == 0 { 2_000_000 } else { number };
        let content = [number.to_string().as_bytes(), &noise(length)].concat();
        store.write(&format!("{}/{number:03}.bin", number / 100), &content);
    }
    let source = store.source();
    for jobs in ["1", "4"] {
        let added = store.json("add", &["--jobs", jobs, source.to_str().unwrap()]);
        let names: Vec<_> = added
            .iter()
            .map(|line| line["file"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(names.len(), FILES);
        assert!(names.is_sorted());
        assert!(added.iter().all(|line| line["added"] == (jobs == "1")));
    }
    assert_eq!(store.listed().len(), FILES);
    assert!(store.run("check", &[]).status.success());
    // A file that cannot be added is told, and the rest is added.
    let missing = store.source().join("none");
    let last = store.write("last.txt", b"last");
    let output = store.run("add", &[missing.to_str().unwrap(), last.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("cannot read"), "{output:?}");
    assert_eq!(stdout(&output).lines().count(), 1);
}

/// A file that cannot be added keeps the journal, as an interruption does.
#[cfg(target_os = "linux")]
#[test]
fn an_interrupted_add_is_resumed_without_reading_again_what_is_unchanged() {
    let store = Store::new();
    for name in ["a.txt", "b.txt", "c.txt"] {
        store.write(name, name.as_bytes());
    }
    let source = store.source();
    let missing = source.join("none");
    // Until the files are older than the tick of the file system's clock.
    loop {
        let output = store.run(
            "add",
            &[source.to_str().unwrap(), missing.to_str().unwrap()],
        );
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let resumed = stderr(&output).contains("resuming an interrupted add: 3 stored files");
        let read_again = stdout(&output)
            .lines()
            .filter(|line| !line.contains("not read again"));
        if resumed && read_again.count() == 0 {
            break;
        }
    }
    // Of changed files, and of media that is gone, nothing is taken for granted.
    store.write("b.txt", b"changed");
    let gone = store.json("ls", &[]);
    let gone = gone
        .iter()
        .find(|line| line["size"] == 5 && id(line) == sha256(b"c.txt"))
        .unwrap();
    assert!(store.run("rm", &[&id(gone)]).status.success());
    let added = store.json("add", &[source.to_str().unwrap(), "--private"]);
    let read: Vec<_> = added
        .iter()
        .map(|line| line["read"].as_bool().unwrap())
        .collect();
    assert_eq!(read, [false, true, true]);
    // Access holds for what was not read, too.
    assert!(
        added.iter().all(|line| line["access"] == "private"),
        "{added:?}"
    );
    assert_eq!(added[0]["access_before"], "public");
    // It was finished, so nothing is left to resume.
    let again = store.run("add", &[source.to_str().unwrap()]);
    assert!(
        again.status.success() && stderr(&again).is_empty(),
        "{again:?}"
    );
    let left = fs::read_dir(store.path().join(".incoming")).unwrap();
    assert_eq!(left.count(), 1, "the lock alone");
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    hex::encode(Sha256::digest(bytes))
}

/// Its output has no reader any more.
#[test]
fn an_add_that_nobody_listens_to_ends() {
    let store = Store::new();
    for number in 0..2000 {
        store.write(&format!("{number}.txt"), number.to_string().as_bytes());
    }
    let mut command = store.command("add");
    command
        .arg(store.source())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(!output.status.success(), "{output:?}");
    assert_eq!(stderr(&output).lines().count(), 1, "{output:?}");
}
