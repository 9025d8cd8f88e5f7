//! The prose linter: short sentences that begin with their noun or verb, in the words of the field.
//!
//! It reads the hand-written pages and the comments of the crates as Markdown, and takes them apart into sentences.

use anyhow::{Context, Result, ensure};
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use walkdir::{DirEntry, WalkDir};

/// Files, and folders whose files are checked: pages (`md`), sources (`rs`) and interfaces (`wit`).
const CHECKED: [&str; 13] = [
    "README.md",
    "CONTRIBUTING.md",
    "docs",
    "format",
    "host",
    "guest",
    "components",
    "wit",
    "plugins",
    "examples",
    "xtask",
    "bench",
    "tests",
];

/// Extensions of files that are checked.
const EXTENSIONS: [&str; 3] = ["md", "rs", "wit"];

/// Pages that a task writes.
const GENERATED: [&str; 4] = [
    "bench/results/README.md",
    "docs/conformance.md",
    "docs/hosts.md",
    "docs/reference/limits.md",
];

/// Names of folders with files of others: `deps` has the interfaces of WASI. Hidden folders are skipped as well.
const SKIPPED: [&str; 4] = ["deps", "dist", "node_modules", "target"];

/// A reader loses the beginning of a longer sentence.
const SENTENCE_WORDS: usize = 25;

/// `git log --oneline` fits into a terminal with it.
const SUBJECT_CHARACTERS: usize = 72;

/// Beginnings that put off what the sentence is about.
const BEGINNINGS: [&str; 7] = [
    "what", "whose", "whoever", "whatever", "that of", "those of", "of what",
];

/// Words of our own, each with the field's.
const HOME_MADE: [(&str, &str); 14] = [
    ("lend", "sendfile"),
    ("lends", "sendfile"),
    ("lent", "sendfile"),
    ("piece", "chunk or part"),
    ("pieces", "chunks or parts"),
    ("given again", "served from the cache"),
    ("asked again", "revalidated"),
    ("whoever", "a client, caller or reader"),
    ("the pace", "the rate limit"),
    ("drip", "slow reader"),
    ("drips", "slow readers"),
    ("makes way", "is closed for another"),
    ("make way", "are closed for others"),
    ("overdue", "timed out"),
];

/// Prints each finding, and fails if there is one.
///
/// # Errors
/// When there is a finding, or a file or the last commit cannot be read.
pub(crate) fn check(root: &Path) -> Result<()> {
    let mut findings = Vec::new();
    for path in files(root)? {
        let text = fs::read_to_string(root.join(&path))
            .with_context(|| format!("cannot read {}", path.display()))?;
        let text = match path.extension() {
            Some(extension) if extension != "md" => comments(&text),
            _ => text,
        };
        for (line, sentence, reason) in faults(&text) {
            findings.push(format!("{}:{line}: {sentence}: {reason}", path.display()));
        }
    }
    let subject = last_subject(root)?;
    if subject.chars().count() > SUBJECT_CHARACTERS {
        findings.push(format!(
            "the last commit: {subject}: more than {SUBJECT_CHARACTERS} characters"
        ));
    }
    for finding in &findings {
        println!("{finding}");
    }
    ensure!(findings.is_empty(), "prose: {} findings", findings.len());
    Ok(())
}

/// The files that are checked, relative to the root and in order.
fn files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for checked in CHECKED {
        let entries = WalkDir::new(root.join(checked)).sort_by_file_name();
        let entries = entries.into_iter().filter_entry(|entry| !is_skipped(entry));
        for entry in entries {
            let entry = entry.with_context(|| format!("cannot read {checked}"))?;
            let path = entry.path().strip_prefix(root)?;
            let is_prose = path
                .extension()
                .is_some_and(|extension| EXTENSIONS.iter().any(|checked| extension == *checked));
            let is_generated = GENERATED.iter().any(|page| path == Path::new(page));
            if entry.file_type().is_file() && is_prose && !is_generated {
                files.push(path.to_owned());
            }
        }
    }
    Ok(files)
}

fn is_skipped(entry: &DirEntry) -> bool {
    let name = entry.file_name().to_string_lossy();
    let is_folder = entry.file_type().is_dir();
    is_folder && (SKIPPED.contains(&&*name) || name.starts_with('.'))
}

/// The subject of the last commit that is no merge, whose subject git makes.
fn last_subject(root: &Path) -> Result<String> {
    let output = Command::new("git")
        .current_dir(root)
        .args(["log", "-1", "--no-merges", "--format=%s"])
        .output()
        .context("cannot run git")?;
    ensure!(output.status.success(), "git log fails");
    let subject = String::from_utf8(output.stdout).context("git log is not UTF-8")?;
    Ok(subject.trim_end().to_owned())
}

/// The comments of a source as Markdown, each on its line. Lines of code become blank, so that they end a paragraph.
fn comments(source: &str) -> String {
    let lines = source.lines().map(|line| {
        let comment = line.trim_start().strip_prefix("//").unwrap_or_default();
        let comment = comment.strip_prefix(['/', '!']).unwrap_or(comment);
        comment.strip_prefix(' ').unwrap_or(comment)
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The faults of a Markdown text: line, sentence and reason.
fn faults(markdown: &str) -> Vec<(usize, String, String)> {
    let mut faults = Vec::new();
    for block in blocks(markdown) {
        for (line, sentence) in block.sentences(markdown) {
            let reasons = reasons(&sentence).into_iter();
            faults.extend(reasons.map(|reason| (line, sentence.clone(), reason)));
        }
    }
    faults
}

/// The text of a paragraph, a heading, an item or a cell. Code and links are one word each.
#[derive(Default)]
struct Block {
    text: String,
    /// Where parts of the text begin: in it, and in the Markdown.
    origins: Vec<(usize, usize)>,
}

fn blocks(markdown: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut block = Block::default();
    // Tags whose content is not read.
    let mut skipped = 0;
    for (event, range) in Parser::new_ext(markdown, Options::ENABLE_TABLES).into_offset_iter() {
        let word = match &event {
            Event::Start(Tag::CodeBlock(_)) => {
                skipped += 1;
                ""
            }
            Event::Start(Tag::Link { .. } | Tag::Image { .. }) => {
                skipped += 1;
                if skipped == 1 { "Link" } else { "" }
            }
            Event::End(TagEnd::CodeBlock | TagEnd::Link | TagEnd::Image) => {
                skipped -= 1;
                ""
            }
            _ if skipped > 0 => "",
            Event::Text(text) => text,
            Event::Code(_) => "Code",
            Event::SoftBreak | Event::HardBreak => " ",
            Event::Start(Tag::Emphasis | Tag::Strong)
            | Event::End(TagEnd::Emphasis | TagEnd::Strong) => "",
            Event::Start(_) | Event::End(_) => {
                blocks.push(std::mem::take(&mut block));
                ""
            }
            _ => "",
        };
        if !word.is_empty() {
            block.origins.push((block.text.len(), range.start));
            block.text.push_str(word);
        }
    }
    blocks.push(block);
    blocks
}

impl Block {
    /// The sentences, each with the line that it begins on.
    fn sentences(&self, markdown: &str) -> Vec<(usize, String)> {
        let mut sentences = Vec::new();
        let mut from = 0;
        for to in sentence_ends(&self.text) {
            let sentence = &self.text[from..to];
            let start = from + sentence.len() - sentence.trim_start().len();
            if !sentence.trim().is_empty() {
                sentences.push((self.line(start, markdown), sentence.trim().to_owned()));
            }
            from = to;
        }
        sentences
    }

    fn line(&self, place: usize, markdown: &str) -> usize {
        let origin = self.origins.iter().rev().find(|(text, _)| *text <= place);
        let offset = origin.map_or(0, |(_, offset)| *offset);
        1 + markdown[..offset].matches('\n').count()
    }
}

/// The ends of sentences: a full stop, a question mark or an exclamation mark before a space, and the end of the text.
fn sentence_ends(text: &str) -> Vec<usize> {
    let mut ends = Vec::new();
    for (place, _) in text.match_indices(char::is_whitespace) {
        let before = text[..place].trim_end_matches([')', '"', '”', '’']);
        let is_abbreviation = ["e.g.", "i.e.", "vs."]
            .iter()
            .any(|end| before.ends_with(end));
        if before.ends_with(['.', '?', '!']) && !is_abbreviation {
            ends.push(place);
        }
    }
    ends.push(text.len());
    ends
}

/// Reasons to mend a sentence.
fn reasons(sentence: &str) -> Vec<String> {
    let words: Vec<String> = sentence
        .split_whitespace()
        .map(|word| word.trim_matches(|c: char| !c.is_alphanumeric()))
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect();
    let spaced = format!(" {} ", words.join(" "));
    let mut reasons = Vec::new();
    if words.len() > SENTENCE_WORDS {
        reasons.push(format!("{} words", words.len()));
    }
    for beginning in BEGINNINGS {
        if spaced.starts_with(&format!(" {beginning} ")) {
            reasons.push(format!("begins with {beginning:?}"));
        }
    }
    for (own, usual) in HOME_MADE {
        if spaced.contains(&format!(" {own} ")) {
            reasons.push(format!("{own:?}: say {usual}"));
        }
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(markdown: &str) -> Vec<(usize, String)> {
        let faults = faults(markdown).into_iter();
        faults.map(|(line, _, reason)| (line, reason)).collect()
    }

    #[test]
    fn a_sentence_goes_over_lines_and_counts_code_and_links_as_one_word() {
        let limit = "word ".repeat(SENTENCE_WORDS - 3);
        let fits = format!("{limit}\nword `a b c` [d e f](g).");
        assert_eq!(found(&fits), []);
        let long = format!("One.\n{limit}\nword `a b c` [d e f](g) word. Two.");
        assert_eq!(found(&long), [(2, "26 words".to_owned())]);
    }

    #[test]
    fn items_and_cells_are_texts_of_their_own_and_fences_are_none() {
        let item = "word ".repeat(SENTENCE_WORDS);
        let text = format!(
            "- {item}\n- {item}\n\n| {item} | {item} |\n| --- | --- |\n\n```\n{item}{item}\n```\n"
        );
        assert_eq!(found(&text), []);
    }

    #[test]
    fn beginnings_and_words_are_found_in_comments_only() {
        let source = "/// What it holds.\nlet piece = \"drip\";\n// Sends a piece (e.g. one\n// of `piece`).\n\n//! That of all.";
        assert_eq!(
            found(&comments(source)),
            [
                (1, "begins with \"what\"".to_owned()),
                (3, "\"piece\": say chunk or part".to_owned()),
                (6, "begins with \"that of\"".to_owned()),
            ]
        );
        assert_eq!(found("Somewhat. Masterpiece. In that of all."), []);
    }
}
