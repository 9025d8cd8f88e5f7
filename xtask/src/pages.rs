//! Checks of the pages: links lead somewhere, the table of contents is complete, and the tests that a page names exist.

use anyhow::{Context, Result, ensure};
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};
use walkdir::{DirEntry, WalkDir};

/// Names of folders with files of others, and of templates whose links are right where they are copied to.
const SKIPPED: [&str; 5] = ["deps", "dist", "node_modules", "starters", "target"];

/// Table of contents of the site.
const CONTENTS: &str = "docs/SUMMARY.md";

/// Pages that name tests, which have to exist.
const NAMING_TESTS: [&str; 2] = ["docs/deploy.md", "docs/threat-model.md"];

/// Prints each finding, and fails if there is one.
///
/// # Errors
/// A link leads nowhere, a page is not in the table of contents, or a named test does not exist.
pub(crate) fn check(root: &Path) -> Result<()> {
    let pages = pages(root)?;
    let mut findings = dead_links(root, &pages);
    findings.extend(pages_without_entry(&pages)?);
    findings.extend(missing_tests(root, &pages)?);
    for finding in &findings {
        println!("{finding}");
    }
    ensure!(findings.is_empty(), "pages: {} findings", findings.len());
    Ok(())
}

/// A page, taken apart.
#[derive(Default)]
struct Page {
    links: BTreeSet<String>,
    /// Fragments of the headings, as GitHub and mdBook make them.
    fragments: BTreeSet<String>,
    /// Texts in code spans.
    code: BTreeSet<String>,
}

/// Returns the pages of the workspace by their paths.
fn pages(root: &Path) -> Result<BTreeMap<PathBuf, Page>> {
    let mut pages = BTreeMap::new();
    let entries = WalkDir::new(root).min_depth(1).into_iter();
    for entry in entries.filter_entry(|entry| !is_skipped(entry)) {
        let entry = entry.context("cannot read the workspace")?;
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "md") {
            let text = fs::read_to_string(path);
            let text = text.with_context(|| format!("cannot read {}", path.display()))?;
            pages.insert(path.strip_prefix(root)?.to_owned(), page(&text));
        }
    }
    Ok(pages)
}

fn is_skipped(entry: &DirEntry) -> bool {
    let name = entry.file_name().to_string_lossy();
    entry.file_type().is_dir() && (SKIPPED.contains(&&*name) || name.starts_with('.'))
}

fn page(markdown: &str) -> Page {
    let mut page = Page::default();
    let mut heading: Option<String> = None;
    for event in Parser::new_ext(markdown, Options::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                page.links.insert(dest_url.into_string());
            }
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::End(TagEnd::Heading(_)) => {
                let fragment = fragment(&heading.take().unwrap_or_default());
                let mut unique = fragment.clone();
                for number in 1.. {
                    if page.fragments.insert(unique) {
                        break;
                    }
                    unique = format!("{fragment}-{number}");
                }
            }
            Event::Text(text) => heading
                .iter_mut()
                .for_each(|heading| heading.push_str(&text)),
            Event::Code(code) => {
                heading
                    .iter_mut()
                    .for_each(|heading| heading.push_str(&code));
                page.code.insert(code.into_string());
            }
            _ => {}
        }
    }
    page
}

/// Fragment of a heading: letters and digits in lower case, hyphens for spaces.
fn fragment(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    let lower = heading.to_lowercase();
    lower
        .chars()
        .filter(kept)
        .collect::<String>()
        .replace(' ', "-")
}

/// Returns the links to files that do not exist, and to headings that their page does not have.
fn dead_links(root: &Path, pages: &BTreeMap<PathBuf, Page>) -> Vec<String> {
    let mut findings = Vec::new();
    for (path, page) in pages {
        for link in &page.links {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (file, fragment) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => path.clone(),
                file => normal(&path.parent().unwrap_or(Path::new("")).join(file)),
            };
            let is_there = file.is_empty() || root.join(&target).exists();
            let has_fragment = fragment.is_empty()
                || pages
                    .get(&target)
                    .is_none_or(|page| page.fragments.contains(fragment));
            if !is_there || !has_fragment {
                findings.push(format!("{}: {link} leads nowhere", path.display()));
            }
        }
    }
    findings
}

/// Resolves `..` by name.
pub(crate) fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                normal.pop();
            }
            Component::CurDir => {}
            other => normal.push(other),
        }
    }
    normal
}

/// Returns the pages of the site that its table of contents does not have.
fn pages_without_entry(pages: &BTreeMap<PathBuf, Page>) -> Result<Vec<String>> {
    let contents = pages.get(Path::new(CONTENTS));
    let contents = contents.with_context(|| format!("there is no {CONTENTS}"))?;
    let of_site = pages.keys().filter(|path| path.starts_with("docs"));
    let without = of_site.filter(|path| {
        let name = path.strip_prefix("docs").unwrap_or(path).to_string_lossy();
        *path != Path::new(CONTENTS) && !contents.links.contains(&*name)
    });
    Ok(without
        .map(|path| format!("{}: {CONTENTS} does not have it", path.display()))
        .collect())
}

/// Returns the tests that pages name and that no file has. A test is `file::function`.
fn missing_tests(root: &Path, pages: &BTreeMap<PathBuf, Page>) -> Result<Vec<String>> {
    let sources = sources(root)?;
    let mut findings = Vec::new();
    for name in NAMING_TESTS {
        let page = pages.get(Path::new(name));
        let page = page.with_context(|| format!("there is no {name}"))?;
        let named: Vec<(&str, &str)> = page.code.iter().filter_map(|code| test(code)).collect();
        ensure!(!named.is_empty(), "{name} names no test");
        let is_missing = |(file, function): &&(&str, &str)| {
            let head = format!("fn {function}(");
            !sources
                .iter()
                .any(|(module, text)| module == file && text.contains(&head))
        };
        let missing = named.iter().filter(is_missing);
        findings.extend(
            missing.map(|(file, function)| format!("{name}: there is no test {file}::{function}")),
        );
    }
    Ok(findings)
}

/// Returns the source files with the names of their modules.
fn sources(root: &Path) -> Result<Vec<(String, String)>> {
    let mut sources = Vec::new();
    for folder in ["tests", "host", "guest", "format", "xtask"] {
        for entry in WalkDir::new(root.join(folder)) {
            let entry = entry.with_context(|| format!("cannot read {folder}"))?;
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "rs") {
                sources.push((module(path), fs::read_to_string(path)?));
            }
        }
    }
    Ok(sources)
}

/// Reads `file::function`.
fn test(code: &str) -> Option<(&str, &str)> {
    let (file, function) = code.split_once("::")?;
    let is_name = |name: &str| {
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        !name.is_empty() && name.chars().all(is_plain)
    };
    (is_name(file) && is_name(function)).then_some((file, function))
}

/// Name of a file's module.
fn module(path: &Path) -> String {
    let stem = |path: &Path| {
        path.file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    };
    match stem(path).as_str() {
        "mod" | "main" | "lib" => path.parent().map(stem).unwrap_or_default(),
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn links_lead_somewhere_and_named_tests_exist() {
        check(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..")).unwrap();
    }

    #[test]
    fn a_dead_link_is_found() {
        let text = "# A b, `c`\n[1](#a-b-c) [2](#none) [3](none.md) [4](https://a.example/)\n";
        let pages = [(PathBuf::from("page.md"), page(text))].into();
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert_eq!(
            dead_links(root, &pages),
            [
                "page.md: #none leads nowhere",
                "page.md: none.md leads nowhere"
            ]
        );
    }
}
