//! The page of the conformance table, from its TOML files.

// The tests run the rows, and use more of them than the page.
#[allow(dead_code)]
#[path = "../../tests/conformance/table.rs"]
mod table;

use anyhow::{Result, anyhow};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use table::{Body, Bytes, Case, Common, FAR_FUTURE, Group, List, Natively, Sign, Table};

/// The page, relative to the workspace's root.
const PAGE: &str = "docs/conformance.md";

/// The folder of the table.
const TABLE: &str = "tests/conformance";

/// Writes the page.
pub(crate) fn write(root: &Path) -> Result<()> {
    fs::write(root.join(PAGE), render(root)?)?;
    println!("{PAGE}");
    Ok(())
}

fn render(root: &Path) -> Result<String> {
    let table = Table::read(&root.join(TABLE)).map_err(|error| anyhow!(error))?;
    let mut page = introduction(&table);
    for topic in &table.topics {
        write!(page, "\n## {}\n\n{}\n", topic.title, topic.about)?;
        for group in &topic.groups {
            page += &section(&table.common, group)?;
        }
    }
    page += &common(&table.common)?;
    Ok(page)
}

fn introduction(table: &Table) -> String {
    let rows = table.rows().count();
    let deviating = table.rows().filter(|(_, case)| case.deviates.is_some());
    let failing = table
        .rows()
        .filter(|(_, case)| case.known_failure.is_some());
    let natively = table.rows().filter(|(_, case)| case.natively.is_some());
    let (deviating, failing, natively) = (deviating.count(), failing.count(), natively.count());
    let mut topics = String::new();
    for topic in &table.topics {
        let anchor = topic.title.to_lowercase().replace(' ', "-");
        let anchor = anchor.replace(',', "");
        topics += &format!("- [{}](#{anchor})\n", topic.title);
    }
    format!(
        "<!-- Made by `cargo xtask conformance` from {TABLE}/*.toml: change those. -->\n\n\
         # Conformance\n\n\
         The table has {rows} rows. Each is a request, the expected response, and the source of that: a \
         specification or a public test suite.\n\n\
         `cargo test -p millpond-cli --test system conformance` runs each row natively against the guest's code, \
         against the component, and over a socket. Status, fields and bytes have to be equal to these. {natively} \
         rows set the time or the client's address, and run natively only.\n\n\
         {deviating} rows deviate from their source, and say why. {failing} rows are known failures, which the \
         test does not run.\n\n\
         {topics}- [Responses](#responses)\n- [Objects](#objects)\n"
    )
}

fn section(common: &Common, group: &Group) -> Result<String> {
    let mut section = format!("\n### {}\n\nSource: {}", group.title, text(&group.source));
    for (key, value) in &group.settings {
        write!(section, " · {}", code(&format!("{key}: {value}")))?;
    }
    section += "\n\n| case | request | status | response | source | remarks |\n| --- | --- | --- | --- | --- | --- |\n";
    for case in &group.cases {
        let kind = case.answer.as_ref().or(group.answer.as_ref());
        let kind = kind.ok_or_else(|| anyhow!("{}: no response", case.name))?;
        let answer = common.answers.get(kind);
        let answer = answer.ok_or_else(|| anyhow!("{}: no response is {kind}", case.name))?;
        writeln!(
            section,
            "| {} | {} | {} | {} | {} | {} |",
            text(&case.name),
            request(group, case),
            answer.status,
            answer_cell(kind, case),
            case.source.as_deref().map(text).unwrap_or_default(),
            remark(case),
        )?;
    }
    Ok(section)
}

/// The request: methods, targets or objects, and field lines. A varied field has its values side by side.
fn request(group: &Group, case: &Case) -> String {
    let methods = case.method.or(&group.method.or_default("GET")).join(", ");
    let objects = case.of.or(&group.of.or_default("named")).join(", ");
    let is_of_object =
        |target: &String| ["{path}", "{id}"].iter().any(|word| target.contains(word));
    let targets = if case.target.0.is_empty() {
        objects
    } else if case.target.0.iter().any(is_of_object) {
        format!("{} of {objects}", alternatives(&case.target))
    } else {
        alternatives(&case.target)
    };
    let mut lines = vec![format!("{} {targets}", text(&methods))];
    for (name, values) in group.send.iter().chain(&case.send) {
        for value in &values.0 {
            lines.push(code(&format!("{name}: {value}")));
        }
    }
    for (name, values) in &case.vary {
        lines.push(format!("{}: {}", code(name), alternatives(values)));
    }
    lines.extend(case.sign.as_ref().map(signature));
    lines.extend(case.natively.as_ref().map(natively));
    lines.join("<br>")
}

/// The parameters of `{signature}` that differ from the default.
fn signature(sign: &Sign) -> String {
    let mut parts = vec![format!("signed with {}", code(&sign.key))];
    if let Some(path) = &sign.path {
        parts.push(format!("for {}", code(path)));
    }
    if let Some(prefix) = &sign.prefix {
        parts.push(format!("for clients in {}", code(prefix)));
    }
    if sign.expires != FAR_FUTURE {
        parts.push(format!("until {}", sign.expires));
    }
    parts.join(" ")
}

fn natively(known: &Natively) -> String {
    let mut line = "natively".to_owned();
    if let Some(received) = known.received {
        line += &format!(", at {received}");
    }
    if let Some(client) = &known.client {
        line += &format!(", from {}", code(client));
    }
    line
}

fn alternatives(values: &List) -> String {
    let each = values.0.iter().map(|value| match value.as_str() {
        "-" => "none".to_owned(),
        "" => "empty".to_owned(),
        value => code(value),
    });
    each.collect::<Vec<_>>().join(", ")
}

/// The kind of response, and its fields beyond those of the kind.
fn answer_cell(kind: &str, case: &Case) -> String {
    let mut lines = vec![format!("[{kind}](#responses)")];
    if let Some(bytes) = &case.bytes {
        lines.push(format!("bytes {bytes}"));
    }
    for (name, value) in &case.fields {
        lines.push(match value.as_str() {
            "-" => format!("no {}", code(name)),
            value => code(&format!("{name}: {value}")),
        });
    }
    lines.join("<br>")
}

fn remark(case: &Case) -> String {
    let deviates = case.deviates.as_ref();
    let deviates = deviates.map(|why| format!("**Deviates**: {}", text(why)));
    let failure = case.known_failure.as_ref();
    let failure = failure.map(|why| format!("**Known failure**: {}", text(why)));
    deviates.into_iter().chain(failure).collect()
}

/// The kinds of response and the objects, which the rows share.
fn common(common: &Common) -> Result<String> {
    let mut page = "\n## Responses\n\nThe object determines the values of the words in braces. A field whose word has no \
         value is absent, and so is each field that is not listed; the host adds `date`. The response to `HEAD` has \
         the same fields and no content.\n\n\
         | response | status | fields | content |\n| --- | --- | --- | --- |\n"
        .to_owned();
    for (name, answer) in &common.answers {
        let groups = answer.groups.iter().filter_map(|g| common.fields.get(g));
        let fields: Vec<_> = groups
            .flatten()
            .chain(&answer.fields)
            .map(|(name, value)| code(&format!("{name}: {value}")))
            .collect();
        let content = match &answer.body {
            Body::Empty => String::new(),
            Body::Whole => "the object".into(),
            Body::Part => "the selected bytes".into(),
            Body::Parts => "the selected ranges, in parts".into(),
            Body::Text(text) => code(text),
        };
        let (status, fields) = (answer.status, fields.join("<br>"));
        writeln!(page, "| {name} | {status} | {fields} | {content} |")?;
    }
    page += "\n## Objects\n\n| object | name | content | type | `{cache}` | remarks |\n\
             | --- | --- | --- | --- | --- | --- |\n";
    for (key, fixture) in &common.fixtures {
        let name = fixture.name.as_deref().map(code);
        let name = name.unwrap_or_else(|| "none: stored by its content".into());
        let content = match &fixture.bytes {
            Bytes::Noise(length) => format!("{length} pseudorandom bytes"),
            Bytes::Text(text) if text.is_empty() => "empty".into(),
            Bytes::Text(text) => code(text),
            Bytes::Latin1(text) => format!("{} in ISO 8859-1", code(text)),
        };
        let cache = fixture.cache.trim_matches(['{', '}']);
        let cache = common.words.get(cache).map(|value| code(value));
        let cache = cache.unwrap_or_default();
        let original = fixture.variant_of.as_ref();
        let remarks = [
            (!fixture.served).then(|| "hidden".to_owned()),
            original.map(|original| format!("variant of {original}")),
            fixture
                .modified
                .map(|modified| format!("modified at {modified}")),
            fixture.coding.as_ref().map(|coding| code(coding)),
            fixture.private.then(|| "private".to_owned()),
        ];
        let remarks: Vec<_> = remarks.into_iter().flatten().collect();
        let (media_type, remarks) = (code(&fixture.r#type), remarks.join(", "));
        writeln!(
            page,
            "| {key} | {name} | {content} | {media_type} | {cache} | {remarks} |"
        )?;
    }
    Ok(page)
}

/// Returns prose for a cell.
fn text(prose: &str) -> String {
    prose
        .replace('|', "\\|")
        .replace('*', "\\*")
        .replace('<', "&lt;")
}

/// Returns code for a cell, with invisible characters escaped.
fn code(text: &str) -> String {
    let shown = text
        .replace('\t', "\\t")
        .replace('\n', "\\n")
        .replace('\0', "\\0")
        .replace('\u{10}', "\\x10")
        .replace('|', "\\|");
    if shown.contains('`') {
        format!("`` {shown} ``")
    } else {
        format!("`{shown}`")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_committed_page_is_made_of_this_table() {
        let root = crate::workspace_root().unwrap();
        let page = fs::read_to_string(root.join(PAGE)).unwrap();
        assert!(
            page == render(&root).unwrap(),
            "{PAGE} is stale: run `cargo xtask conformance` and commit what it writes"
        );
    }
}
