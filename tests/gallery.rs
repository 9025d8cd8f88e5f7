//! Folders, as they are on disk and as a browser shows them.

use crate::host::{Host, Setup, with};
use crate::players::{Browser, sample};
use fantoccini::Locator;
use fantoccini::key::Key;
use millpond::Config;
use std::collections::BTreeSet;
use std::fs;

const HTML: (&str, &str) = ("accept", "text/html,*/*;q=0.8");

/// Follows the pages of a listing in JSON, and returns the names in order.
async fn names(host: &Host, mut target: String) -> Vec<String> {
    let mut names = Vec::new();
    loop {
        let page = host.request("GET", &target, &[]).await;
        assert_eq!(page.status, 200, "{target}");
        let page: serde_json::Value = serde_json::from_slice(&page.body).unwrap();
        let entries = page["entries"].as_array().unwrap();
        names.extend(
            entries
                .iter()
                .map(|entry| entry["name"].as_str().unwrap().to_owned()),
        );
        match page["next"].as_str() {
            Some(next) => target = next.to_owned(),
            None => return names,
        }
    }
}

/// The memory of a page does not depend on the folder.
#[tokio::test]
async fn a_folder_of_a_hundred_thousand_files_is_listed_page_by_page() {
    const FILES: usize = 100_000;
    let host = Host::start().await;
    let folder = host.folder.path().join("large");
    fs::create_dir(&folder).unwrap();
    let first = folder.join("000000.gif");
    fs::write(&first, "GIF89a").unwrap();
    for number in 1..FILES {
        // A link takes no inode of its own.
        let linked = fs::hard_link(&first, folder.join(format!("{number:06}.gif")));
        if linked.is_err() {
            fs::write(folder.join(format!("{number:06}.gif")), "GIF89a").unwrap();
        }
    }
    let page = host.request("GET", "/media/large/", &[HTML]).await;
    assert_eq!((page.status, page.whole), (200, true));
    let text = String::from_utf8(page.body).unwrap();
    assert_eq!(text.matches("<li ").count(), 100);
    assert!(text.contains("<span>100000 entries</span>"));
    let last_page = "/media/large/?after=f.0.099899.gif";
    assert_eq!(names(&host, last_page.into()).await.len(), 100);
    let found = names(&host, "/media/large/?q=9999".into()).await;
    let expected = (0..FILES).map(|number| format!("{number:06}.gif"));
    let expected: Vec<_> = expected.filter(|name| name.contains("9999")).collect();
    assert_eq!(found, expected);
    host.registry().idle().await;
}

#[cfg(unix)]
#[tokio::test]
async fn links_in_a_circle_and_odd_entries_are_left_out() {
    use std::os::unix::fs::symlink;
    let host = Host::start().await;
    let root = host.folder.path();
    host.write("album/a.gif", b"GIF89a");
    host.write("album/<script>alert(1)<b>.gif", b"GIF89a");
    host.write("album/.hidden.gif", b"GIF89a");
    symlink("b", root.join("album/c")).unwrap();
    symlink("c", root.join("album/b")).unwrap();
    symlink("../../..", root.join("album/out")).unwrap();
    symlink("/etc/passwd", root.join("album/passwd")).unwrap();
    symlink("a.gif", root.join("album/link.gif")).unwrap();
    symlink(".", root.join("album/here")).unwrap();
    let fifo = root.join("album/fifo");
    let mode = rustix::fs::Mode::RUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    host.add(b"stored by content");
    let expected = ["here", "<script>alert(1)<b>.gif", "a.gif", "link.gif"];
    for sort in ["name", "modified"] {
        let found = names(&host, format!("/media/album/?sort={sort}")).await;
        let found: BTreeSet<_> = found.iter().map(String::as_str).collect();
        assert_eq!(found, BTreeSet::from(expected), "{sort}");
    }
    assert_eq!(
        names(&host, "/media/album/here/here/".into()).await.len(),
        4
    );
    let root = names(&host, "/media/".into()).await;
    assert_eq!(
        root,
        ["album"],
        "folders of the content store are not listed"
    );
    let page = host.request("GET", "/media/album/", &[HTML]).await;
    let page = String::from_utf8(page.body).unwrap();
    assert_eq!(page.matches("<script").count(), 1, "{page}");
}

#[tokio::test]
async fn a_page_of_the_folder_takes_its_place() {
    let host = Host::start().await;
    host.write("site/index.html", b"<!doctype html><p>mine");
    host.write("site/a.gif", b"GIF89a");
    let page = host.request("GET", "/media/site/", &[HTML]).await;
    assert_eq!(page.body, b"<!doctype html><p>mine");
    assert!(page.field("etag").is_some());
}

#[tokio::test]
async fn listings_that_are_turned_off_are_missing() {
    let config: Config = with(|config: &mut Config| config.browse = Some(false));
    let setup = Setup {
        config,
        ..Setup::default()
    };
    let host = Host::start_with(setup).await;
    host.write("album/a.gif", b"GIF89a");
    for target in ["/", "/media/", "/media/album/", "/media/album"] {
        assert_eq!(
            host.request("GET", target, &[HTML]).await.status,
            404,
            "{target}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs chromium and chromedriver"]
async fn a_browser_plays_a_film_of_the_gallery_and_seeks_by_keyboard() {
    let host = Host::start().await;
    for name in ["clip.mp4", "wheel.gif", "tone.mp3", "pond.webp"] {
        host.write(
            &format!("My album/{name}"),
            &fs::read(sample(name)).unwrap(),
        );
    }
    let browser = Browser::start().await;
    let client = &browser.client;
    client
        .goto(&format!("http://{}/", host.address))
        .await
        .unwrap();
    client
        .find(Locator::LinkText("My album"))
        .await
        .unwrap()
        .click()
        .await
        .unwrap();
    let loaded = client.execute_async(
        "const done = arguments[arguments.length - 1];
         const film = document.querySelector('.t video');
         const ready = () => film.readyState >= 2 && done([film.videoWidth, document.querySelector('.t i').textContent]);
         film.addEventListener('loadeddata', ready);
         ready();",
        vec![],
    );
    let [width, duration] =
        <[serde_json::Value; 2]>::try_from(loaded.await.unwrap().as_array().unwrap().clone())
            .unwrap();
    assert_eq!(
        (width, duration),
        (480.into(), "0:10".into()),
        "the thumbnail of the film"
    );

    client
        .find(Locator::Css("li[data-name='clip.mp4'] a"))
        .await
        .unwrap()
        .click()
        .await
        .unwrap();
    let film = Locator::Css("dialog[open] video");
    client.wait().for_element(film).await.unwrap();
    // Waits until the film is at a time, and returns that time.
    let at = async |condition: &str| {
        let script = format!(
            "const done = arguments[arguments.length - 1];
             const film = document.querySelector('dialog video');
             const look = () => ({condition}) ? done(film.currentTime) : setTimeout(look, 20);
             look();"
        );
        client
            .execute_async(&script, vec![])
            .await
            .unwrap()
            .as_f64()
            .unwrap()
    };
    let press = async |keys: &str| {
        let focused = client.active_element().await.unwrap();
        focused.send_keys(keys).await.unwrap();
    };
    at("film.currentTime > 0.2 && !film.paused").await;
    press("k").await;
    let paused = at("film.paused").await;
    press(&char::from(Key::Right).to_string()).await;
    assert!(at("!film.seeking").await >= paused + 4.9);
    press("2").await;
    assert!((at("!film.seeking && film.readyState >= 2").await - 2.0).abs() < 0.2);
    press(" ").await;
    at("film.currentTime > 2.3 && !film.paused").await;
    press("n").await;
    let title = client.find(Locator::Css("dialog b")).await.unwrap();
    assert_eq!(title.text().await.unwrap(), "pond.webp (2 of 4)");
    press(&char::from(Key::Escape).to_string()).await;
    let open = client.find_all(Locator::Css("dialog[open]")).await.unwrap();
    assert!(open.is_empty());
    // A link to one entry opens the player.
    let url = format!("http://{}/media/My%20album/#wheel.gif", host.address);
    client.goto(&url).await.unwrap();
    client
        .wait()
        .for_element(Locator::Css("dialog[open] img"))
        .await
        .unwrap();
    browser.stop().await;
    host.registry().idle().await;
}
