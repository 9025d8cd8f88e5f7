//! Players, downloaders and browsers.
//!
//! Tests that need a program that not every machine has (curl, ffmpeg, mpv, VLC, Chromium with its driver) are
//! ignored unless asked for: `cargo test --workspace -- --include-ignored`.

use crate::host::{Host, Setup, noise};
use fantoccini::{Client, ClientBuilder};
use millpond::Config;
use sha2::{Digest, Sha256};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

#[tokio::test]
async fn five_hundred_ranges_in_any_order_are_the_file() {
    let host = Host::start().await;
    let content = noise(1_000_003);
    let id = host.add(&content);
    let target = format!("/api/media/{id}");
    // Cut at 499 places that the noise chooses, then taken in an order that it chooses too.
    let mut cuts: Vec<usize> = noise(499 * 8)
        .chunks_exact(8)
        .map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap()) as usize % content.len())
        .chain([0, content.len()])
        .collect();
    cuts.sort_unstable();
    let mut ranges: Vec<_> = cuts
        .windows(2)
        .map(|cut| cut[0]..cut[1])
        .filter(|range| !range.is_empty())
        .collect();
    ranges.sort_by_key(|range| content[range.start].wrapping_mul(31));
    assert!(ranges.len() > 480, "{} ranges", ranges.len());
    let mut assembled = vec![0; content.len()];
    for range in ranges {
        let field = format!("bytes={}-{}", range.start, range.end - 1);
        let part = host.request("GET", &target, &[("range", &field)]).await;
        assert_eq!((part.status, part.whole), (206, true));
        let content_range = format!("{}/{}", field.replace('=', " "), content.len());
        assert_eq!(part.field("content-range"), Some(content_range.as_str()));
        assembled[range].copy_from_slice(&part.body);
    }
    assert_eq!(hex::encode(Sha256::digest(&assembled)), id.to_string());
}

/// Runs a program on another thread, for the host lives on this one, and expects it to go well.
async fn run(program: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(arguments);
    let output = tokio::task::spawn_blocking(move || command.output());
    let output = output.await.unwrap();
    let output = output.unwrap_or_else(|error| panic!("cannot run {program}: {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {stderr}");
    output
}

pub(crate) fn sample(name: &str) -> PathBuf {
    let media = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/media");
    media.join(name)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs curl"]
async fn curl_resumes_a_download() {
    let host = Host::start().await;
    let content = noise(700_000);
    let id = host.add(&content);
    let url = format!("http://{}/api/media/{id}", host.address);
    let file = host.folder.path().join("partial");
    std::fs::write(&file, &content[..123_456]).unwrap();
    let path = file.to_str().unwrap();
    run("curl", &["-sSf", "-C", "-", "-o", path, &url]).await;
    assert!(std::fs::read(&file).unwrap() == content);
}

/// The file has changed since the download began. Its rest is not appended to the part of the old file (`If-Range`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs aria2c and wget"]
async fn download_tools_fetch_in_pieces_and_resume() {
    let host = Host::start().await;
    let content = noise(9_000_000);
    let id = host.add(&content);
    let url = format!("http://{}/api/media/{id}", host.address);
    let downloads = tempfile::tempdir().unwrap();
    let at = |name: &str| downloads.path().join(name);
    let folder = downloads.path().to_str().unwrap();
    let split = [
        "--split=8",
        "--max-connection-per-server=8",
        "--min-split-size=1M",
    ];
    let arguments = [&split[..], &["-q", "--dir", folder, "--out=aria", &url]].concat();
    run("aria2c", &arguments).await;
    assert!(std::fs::read(at("aria")).unwrap() == content);

    std::fs::write(at("wget"), &content[..1_234_567]).unwrap();
    let path = at("wget");
    run("wget", &["-q", "-c", "-O", path.to_str().unwrap(), &url]).await;
    assert!(std::fs::read(&path).unwrap() == content);

    // As a download manager does it: the rest, if it is still the same file.
    host.write("film.mp4", &content);
    let etag = host.strong_tag("/media/film.mp4").await;
    let rest = [("range", "bytes=1000-"), ("if-range", etag.as_str())];
    let same = host.request("GET", "/media/film.mp4", &rest).await;
    assert_eq!((same.status, same.body.len()), (206, content.len() - 1000));
    host.write("film.mp4", b"another film");
    let changed = host.request("GET", "/media/film.mp4", &rest).await;
    assert_eq!(
        (changed.status, &changed.body[..]),
        (200, &b"another film"[..])
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs ffmpeg"]
async fn ffmpeg_reads_and_seeks_over_http() {
    let host = Host::start().await;
    for name in ["clip.mp4", "clip.webm", "tone.mp3"] {
        let content = std::fs::read(sample(name)).unwrap();
        let id = host.add(&content);
        host.write(name, &content);
        for path in [format!("/api/media/{id}"), format!("/media/{name}")] {
            let url = format!("http://{}{path}", host.address);
            // To a place near the end, and from there to the end.
            let arguments = ["-v", "error", "-ss", "4.5", "-i", &url, "-f", "null", "-"];
            let output = run("ffmpeg", &arguments).await;
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(stderr.is_empty(), "{name}: {stderr}");
        }
    }
    host.registry().idle().await;
}

/// Each is told to begin near the end, without a screen or a speaker, and plays to the end. Some of
/// them only print errors.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs mpv, ffplay and vlc"]
async fn players_seek_and_play_to_the_end() {
    let host = Host::start().await;
    for name in ["clip.mp4", "clip.webm", "tone.mp3"] {
        let content = std::fs::read(sample(name)).unwrap();
        host.write(name, &content);
        for path in [
            format!("/api/media/{}", host.add(&content)),
            format!("/media/{name}"),
        ] {
            let url = format!("http://{}{path}", host.address);
            let said = play(MPV, &url).await;
            let is_well = said.ends_with("(End of file)") && !said.contains("Cannot seek");
            assert!(is_well, "mpv, {name}: {said}");
            let said = play(FFPLAY, &url).await;
            assert!(said.is_empty(), "ffplay, {name}: {said}");
            let said = play(VLC, &url).await;
            let is_well = said.contains("end of playlist") && !said.contains("input error");
            assert!(is_well, "vlc, {name}: {said}");
        }
    }
    host.registry().idle().await;
    // They would tell, were there nothing to play.
    let nothing = format!("http://{}/media/none.mp4", host.address);
    assert!(play(VLC, &nothing).await.contains("input error"));
    assert!(!play(FFPLAY, &nothing).await.is_empty());
    assert!(!play(MPV, &nothing).await.contains("End of file"));
}

const MPV: &str = "mpv --no-config --ytdl=no --vo=null --ao=null --ao-null-untimed=yes --untimed \
                   --msg-level=all=error,cplayer=info --start=4.5";
const FFPLAY: &str = "ffplay -v error -autoexit -ss 4.5";
const VLC: &str = "vlc --intf=dummy --no-color --no-lua --vout=dummy --aout=dummy --start-time=4.5 \
                   --play-and-exit";

/// Plays it, and gives back all that the player says.
async fn play(player: &str, url: &str) -> String {
    // VLC does not run as root, and neither has to be.
    let as_nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups ";
    let is_root = rustix::process::geteuid().is_root();
    let as_nobody = if is_root { as_nobody } else { "" };
    let command = format!("{as_nobody}{player} {url}");
    let home = tempfile::tempdir().unwrap();
    let mut words = command.split_ascii_whitespace();
    let mut command = Command::new(words.next().unwrap());
    command
        .args(words)
        .env("HOME", home.path())
        .env("SDL_VIDEODRIVER", "dummy")
        .env("SDL_AUDIODRIVER", "dummy");
    let output = tokio::task::spawn_blocking(move || command.output());
    let output = output.await.unwrap().unwrap();
    let said = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&said).trim().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs chromium and chromedriver"]
async fn a_browser_shows_a_gif_and_plays_and_seeks_a_video() {
    // The driver runs a script in the page, which a page that is served as media may not.
    let mut config = Config::default();
    config.headers.content_security_policy = Some("".parse().unwrap());
    let host = Host::start_with(Setup {
        config,
        ..Setup::default()
    })
    .await;
    let mut targets = Vec::new();
    for name in [
        "wheel.gif",
        "clip.mp4",
        "clip.webm",
        "pond.webp",
        "logo.svg",
    ] {
        let content = std::fs::read(sample(name)).unwrap();
        host.write(name, &content);
        targets.push(format!("/api/media/{}", host.add(&content)));
    }
    let page = format!(
        "<!DOCTYPE html><title>millpond</title><style>body{{background:#eef}}</style>\
         <h1>by content</h1><img src={gif}><video src={mp4} muted width=400></video>\
         <h1>by name</h1><img src=wheel.gif><video src=clip.webm muted width=400></video>\
         <img src=pond.webp width=200><img src=logo.svg width=100>",
        gif = targets[0],
        mp4 = targets[1],
    );
    host.write("page.html", page.as_bytes());
    let browser = Browser::start().await;
    let url = format!("http://{}/media/page.html", host.address);
    browser.client.goto(&url).await.unwrap();
    let script = "
        const done = arguments[arguments.length - 1];
        const event = (target, name) =>
            new Promise(resolve => target.addEventListener(name, resolve, { once: true }));
        const loaded = image => image.complete ? null : event(image, 'load');
        const play = async video => {
            if (video.readyState < 1) await event(video, 'loadedmetadata');
            const seeked = event(video, 'seeked');
            video.currentTime = video.duration - 2;
            await seeked;
            const from = video.currentTime;
            await video.play();
            while (video.currentTime < from + 0.5) await event(video, 'timeupdate');
            video.pause();
            return [video.duration, from, video.currentTime, video.videoWidth];
        };
        (async () => {
            const images = [...document.images];
            await Promise.all(images.map(loaded));
            const videos = await Promise.all([...document.querySelectorAll('video')].map(play));
            const requests = performance.getEntriesByType('resource')
                .filter(entry => entry.initiatorType == 'video')
                .map(entry => entry.responseStatus);
            done({ images: images.map(image => image.naturalWidth), videos, requests });
        })().catch(error => done({ error: String(error) }));
    ";
    let shown = browser.client.execute_async(script, vec![]).await.unwrap();
    assert_eq!(shown["error"], serde_json::Value::Null);
    for width in shown["images"].as_array().unwrap() {
        assert!(width.as_u64().unwrap() > 0, "{shown}");
    }
    let videos = shown["videos"].as_array().unwrap();
    assert_eq!(videos.len(), 2);
    for video in videos {
        assert!(video[2].as_f64() > video[1].as_f64(), "{shown}");
        assert_eq!(video[3], 480);
    }
    // A request that the browser gave up, to seek elsewhere, has no status: 0.
    let requests = shown["requests"].as_array().unwrap().iter();
    let mut answered = requests.filter(|status| **status != 0).peekable();
    assert!(
        answered.peek().is_some() && answered.all(|status| *status == 206),
        "{shown}"
    );
    let picture = browser.client.screenshot().await.unwrap();
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("browser.png");
    std::fs::write(&path, picture).unwrap();
    println!("screenshot: {}", path.display());
    browser.stop().await;
    host.registry().idle().await;
}

/// A headless Chromium, driven through its own driver.
pub(crate) struct Browser {
    driver: Child,
    pub(crate) client: Client,
    _profile: tempfile::TempDir,
}

impl Browser {
    pub(crate) async fn start() -> Self {
        Browser::start_with(&[]).await
    }

    /// One with more arguments.
    pub(crate) async fn start_with(arguments: &[&str]) -> Self {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .spawn()
            .expect("chromedriver is needed for this test");
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = lines
            .find_map(|line| {
                let line = line.unwrap();
                let port = line.split("successfully on port ").nth(1)?;
                Some(port.trim_end_matches('.').to_owned())
            })
            .expect("chromedriver says where it listens");
        // Its pipe is read on, so that it never waits for us.
        std::thread::spawn(move || lines.for_each(drop));
        let profile = tempfile::tempdir().unwrap();
        let profile_argument = format!("--user-data-dir={}", profile.path().display());
        let usual = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--autoplay-policy=no-user-gesture-required",
            "--window-size=1000,900",
            &profile_argument,
        ];
        let all = [&usual, arguments].concat();
        let capabilities = serde_json::json!({ "goog:chromeOptions": { "args": all } });
        let client = ClientBuilder::new(hyper_util::client::legacy::connect::HttpConnector::new())
            .capabilities(capabilities.as_object().unwrap().clone())
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .unwrap();
        Browser {
            driver,
            client,
            _profile: profile,
        }
    }

    pub(crate) async fn stop(mut self) {
        self.client.close().await.unwrap();
        self.driver.kill().unwrap();
        self.driver.wait().unwrap();
    }
}
