//! A table of text, for a terminal and in Markdown.

use std::fmt::Write;

/// A heading, the names of the columns, and a first cell and as many others in each row.
#[derive(Debug, Clone, Default)]
pub(crate) struct Table {
    pub(crate) heading: String,
    /// Description of its figures, in a sentence or two.
    pub(crate) about: String,
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn plain(&self) -> String {
        let lines = || std::iter::once(&self.columns).chain(&self.rows);
        let width = |column: usize| {
            let cells = lines().filter_map(|line| line.get(column));
            cells
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or_default()
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let mut text = format!("{}\n\n", self.heading);
        for line in lines() {
            for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
                // Writing to a string does not fail.
                let _ = match column {
                    0 => write!(text, "{cell:width$}"),
                    _ => write!(text, "  {cell:>width$}"),
                };
            }
            text.push('\n');
        }
        text
    }

    pub(crate) fn markdown(&self) -> String {
        let Self { heading, about, .. } = self;
        format!("## {heading}\n\n{about}\n\n{}", self.rows_in_markdown())
    }

    /// The table alone.
    pub(crate) fn rows_in_markdown(&self) -> String {
        let mut text = String::new();
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        text += &line(&self.columns);
        text += "| --- |";
        text += &" --: |".repeat(self.columns.len().saturating_sub(1));
        text.push('\n');
        for row in &self.rows {
            text += &line(row);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        Table {
            heading: "Throughput".into(),
            about: "More is better.".into(),
            columns: vec![String::new(), "nginx".into()],
            rows: vec![
                vec!["4 KB".into(), "172,000 ±".into()],
                vec!["50 MB, ü".into(), "–".into()],
            ],
        }
    }

    #[test]
    fn cells_stand_beneath_each_other() {
        let expected =
            "Throughput\n\n              nginx\n4 KB      172,000 ±\n50 MB, ü          –\n";
        assert_eq!(table().plain(), expected);
    }

    #[test]
    fn markdown_has_a_rule_beneath_its_head() {
        let expected = "## Throughput\n\nMore is better.\n\n|  | nginx |\n| --- | --: |\n\
                        | 4 KB | 172,000 ± |\n| 50 MB, ü | – |\n";
        assert_eq!(table().markdown(), expected);
    }
}
