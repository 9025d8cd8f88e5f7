//! The page of the limits: every named constant that bounds something, with its reason, from where it is enforced.

use anyhow::{Context, Result, ensure};
use quote::ToTokens;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use syn::{Attribute, Expr, ExprLit, Item, ItemConst, Lit, Meta};

const PAGE: &str = "docs/reference/limits.md";

/// The folders whose constants are on the page, each with its title.
const CRATES: [(&str, &str); 7] = [
    ("host/ledger/src", "Ledgers"),
    ("host/millpond/src", "Library"),
    ("host/server/src", "Server"),
    ("host/origin/src", "Origins"),
    ("host/cli/src", "Command"),
    ("format/src", "Formats"),
    ("guest/src", "Guest"),
];

/// Prints the page, and writes it.
pub(crate) fn write(root: &Path) -> Result<()> {
    let page = page(root)?;
    print!("{page}");
    fs::write(root.join(PAGE), page).with_context(|| format!("cannot write {PAGE}"))
}

/// Checks that the committed page has the limits of the code.
pub(crate) fn check(root: &Path) -> Result<()> {
    let committed = fs::read_to_string(root.join(PAGE));
    let committed = committed.with_context(|| format!("cannot read {PAGE}"))?;
    ensure!(
        committed == page(root)?,
        "{PAGE} has other limits than the code: run cargo xtask limits"
    );
    Ok(())
}

fn page(root: &Path) -> Result<String> {
    let mut page = String::from(
        "# Limits\n\nEach limit stands beside the code that enforces it, with its reason. `cargo xtask limits` writes this page \
         from there. Options of the command that change one are in [the command line](command-line.md).\n",
    );
    for (folder, title) in CRATES {
        let mut files = Vec::new();
        sources(&root.join(folder), &mut files)?;
        files.sort();
        let mut rows = String::new();
        for file in &files {
            let text = fs::read_to_string(file)
                .with_context(|| format!("cannot read {}", file.display()))?;
            let parsed = syn::parse_file(&text)
                .with_context(|| format!("cannot parse {}", file.display()))?;
            let path = file.strip_prefix(root).unwrap_or(file).display();
            for (name, value, reason) in parsed.items.iter().filter_map(limit) {
                // Writing to a string does not fail.
                let _ = writeln!(rows, "| `{name}` | `{value}` | {reason} | `{path}` |");
            }
        }
        let _ = write!(
            page,
            "\n## {title}\n\n| limit | value | meaning and reason | where |\n| --- | --- | --- | --- |\n{rows}"
        );
    }
    Ok(page)
}

fn sources(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder);
    for entry in entries.with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            sources(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// Name, value and reason of a constant that is a number or a time and is documented.
fn limit(item: &Item) -> Option<(String, String, String)> {
    let Item::Const(item) = item else {
        return None;
    };
    let of_type = item.ty.to_token_stream().to_string();
    let is_number = matches!(
        of_type.as_str(),
        "usize" | "u64" | "u32" | "u16" | "i64" | "Duration"
    );
    let is_number = is_number || of_type.ends_with(":: Duration");
    let reason = documentation(item);
    (is_number && !reason.is_empty()).then(|| (item.ident.to_string(), value(item), reason))
}

/// The value as it is written, without the spaces that tokens have between them.
fn value(item: &ItemConst) -> String {
    let tokens = item.expr.to_token_stream().to_string();
    let mut value = tokens.replace(" :: ", "::").replace(" . ", ".");
    for (spaced, close) in [(" (", "("), ("( ", "("), (" )", ")"), (" ,", ",")] {
        value = value.replace(spaced, close);
    }
    value.replace('|', "\\|")
}

/// The documentation in one line, with links to items left as their names.
fn documentation(item: &ItemConst) -> String {
    let lines = item.attrs.iter().filter_map(doc_line);
    let text = lines.collect::<Vec<_>>().join(" ");
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    words
        .replace("[`", "`")
        .replace("`]", "`")
        .replace('|', "\\|")
}

fn doc_line(attribute: &Attribute) -> Option<String> {
    let Meta::NameValue(pair) = &attribute.meta else {
        return None;
    };
    match &pair.value {
        Expr::Lit(ExprLit {
            lit: Lit::Str(text),
            ..
        }) if pair.path.is_ident("doc") => Some(text.value()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_committed_page_has_the_limits_of_the_code() {
        check(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..")).unwrap();
    }
}
