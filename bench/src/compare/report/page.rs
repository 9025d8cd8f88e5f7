//! The part of `docs/comparison.md` that a whole run makes anew.

use super::Report;
use super::{goals, tables};
use anyhow::{Context, Result};

const BEGIN: &str = "<!-- Made by `cargo xtask bench`: change that. -->\n";
const END: &str = "<!-- Made until here. -->\n";

/// Returns the page with this run's picture and tables in place of those of the last run.
///
/// # Errors
/// The page has no such part.
pub(super) fn renewed(page: &str, report: &Report) -> Result<String> {
    let missing = "the page has no part between the markers";
    let (before, rest) = page.split_once(BEGIN).context(missing)?;
    let (_, after) = rest.split_once(END).context(missing)?;
    let tables = [
        ("Throughput, in times nginx's:", tables::times_nginx(report)),
        (
            "CPU time for a response, in times nginx's:",
            tables::cpu_times_nginx(report),
        ),
        ("Goals:", goals::table(report)),
    ];
    let tables = tables.iter().filter_map(|(caption, table)| {
        let rows = table.as_ref()?.rows_in_markdown();
        Some(format!("{caption}\n\n{rows}"))
    });
    let tables: Vec<String> = tables.collect();
    let tables = tables.join("\n");
    Ok(format!(
        "{before}{BEGIN}![Throughput in times nginx's](../bench/results/bench.svg)\n\n{tables}{END}{after}"
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_stands_around_it_stays() {
        let report = super::super::tests::report();
        let page = format!("before\n{BEGIN}old\n{END}after\n");
        let renewed = super::renewed(&page, &report).unwrap();
        assert!(renewed.starts_with(&format!("before\n{BEGIN}!")));
        assert!(renewed.ends_with(&format!("|\n{END}after\n")));
        assert!(renewed.contains("| 4 KB | 2.00") && !renewed.contains("old"));
        assert_eq!(super::renewed(&renewed, &report).unwrap(), renewed);
        assert!(super::renewed("nothing", &report).is_err());
    }
}
