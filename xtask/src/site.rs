//! Preprocessor of mdBook: the site has the pages of `docs/` alone, so links to other files of the repository become text.

use crate::pages::normal;
use anyhow::{Context, Result};
use pulldown_cmark::{Event, Options, Parser, Tag};
use serde_json::Value;
use std::io;
use std::path::Path;

/// Folder of the pages.
const PAGES: &str = "docs";

/// Reads the book from standard input, and writes it to standard output. mdBook first asks whether the preprocessor
/// supports its output (`supports html`), and takes the exit code 0 for yes.
///
/// # Errors
/// The input is no book of mdBook.
pub(crate) fn preprocess(arguments: &[String]) -> Result<()> {
    if arguments.first().is_some_and(|first| first == "supports") {
        return Ok(());
    }
    let input = serde_json::from_reader(io::stdin().lock());
    let (_, mut book): (Value, Value) = input.context("mdBook runs this, by book.toml")?;
    unlink_chapters(&mut book);
    println!("{book}");
    Ok(())
}

/// Changes the content of each chapter, at any depth.
fn unlink_chapters(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(unlink_chapters),
        Value::Object(fields) => {
            let path = fields
                .get("path")
                .and_then(Value::as_str)
                .map(str::to_owned);
            if let (Some(path), Some(Value::String(content))) = (path, fields.get_mut("content")) {
                *content = unlink(content, Path::new(&path));
            }
            fields.values_mut().for_each(unlink_chapters);
        }
        _ => {}
    }
}

/// Replaces links that leave the folder of the pages by their text.
fn unlink(markdown: &str, page: &Path) -> String {
    let mut unlinked = String::new();
    let mut copied = 0;
    for (event, range) in Parser::new_ext(markdown, Options::ENABLE_TABLES).into_offset_iter() {
        let Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) = event else {
            continue;
        };
        let link = &markdown[range.clone()];
        let text = link
            .rsplit_once("](")
            .map(|(text, _)| text.trim_start_matches(['!', '[']));
        if let (Some(text), true, true) = (text, leaves(&dest_url, page), range.start >= copied) {
            unlinked.push_str(&markdown[copied..range.start]);
            unlinked.push_str(text);
            copied = range.end;
        }
    }
    unlinked.push_str(&markdown[copied..]);
    unlinked
}

fn leaves(link: &str, page: &Path) -> bool {
    let (file, _) = link.split_once('#').unwrap_or((link, ""));
    if file.is_empty() || file.contains("://") {
        return false;
    }
    let folder = Path::new(PAGES).join(page.parent().unwrap_or(Path::new("")));
    !normal(&folder.join(file)).starts_with(PAGES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_other_pages_stay() {
        for (page, markdown, expected) in [
            (
                "a.md",
                "[b](b.md#c) [x](https://a.example)",
                "[b](b.md#c) [x](https://a.example)",
            ),
            (
                "a.md",
                "See [`x`](../host/x.rs), [b](b.md).",
                "See `x`, [b](b.md).",
            ),
            (
                "reference/a.md",
                "[b](../b.md) [c](../../c)",
                "[b](../b.md) c",
            ),
            ("a.md", "![A picture](../bench/b.svg)", "A picture"),
            ("a.md", "`[x](../y)`", "`[x](../y)`"),
        ] {
            assert_eq!(unlink(markdown, Path::new(page)), expected);
        }
    }
}
