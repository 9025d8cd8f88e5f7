//! What millpond answers to what, as a table: `*.toml` in this folder, one row a case.
//!
//! [`table`] reads the rows and [`exchange`] spells them out as requests with the one right answer of each,
//! byte for byte. The same exchanges are then put to the guest's code natively, to the component in this
//! process, and to a host over a real socket; all three have to give that answer. [`properties`] holds what
//! no list of rows can.

mod exchange;
mod fixtures;
mod properties;
// The page shows more of a row than a run needs.
#[allow(dead_code)]
mod table;
mod ways;

use exchange::{Exchange, Response, difference};
use fixtures::{Fixtures, Shelf};
use std::path::Path;
use table::Table;

#[test]
fn the_guest_natively_answers_as_the_table_says() {
    let (table, fixtures) = table();
    let exchanges = exchange::right(&table, &fixtures);
    assert_all(&exchanges, natively(&exchanges, &fixtures));
}

#[test]
fn what_is_marked_wrong_is_wrong_still() {
    let (table, fixtures) = table();
    let exchanges = exchange::wrong(&table, &fixtures);
    let answers = natively(&exchanges, &fixtures);
    for (Exchange { name, expected, .. }, answer) in exchanges.iter().zip(&answers) {
        assert!(expected != answer, "{name}: right now, take the mark away");
    }
}

#[tokio::test]
async fn the_component_in_this_process_answers_as_the_table_says() {
    let (table, fixtures) = table();
    let exchanges = exchange::right(&table, &fixtures);
    let exchanges = not_natively_only(exchanges);
    let mut components = ways::Components::new(&fixtures);
    let mut answers = Vec::new();
    for exchange in &exchanges {
        let component = components.with(&exchange.settings);
        answers.push(component.ask(&exchange.request).await);
    }
    assert_all(&exchanges, answers);
}

#[tokio::test]
async fn the_host_over_a_socket_answers_as_the_table_says() {
    let (table, fixtures) = table();
    let exchanges = exchange::right(&table, &fixtures);
    let exchanges = not_natively_only(exchanges);
    let mut hosts = ways::Hosts::new(&fixtures);
    let mut answers = Vec::new();
    for exchange in &exchanges {
        answers.push(hosts.ask(&exchange.settings, &exchange.request).await);
    }
    assert_all(&exchanges, answers);
}

fn natively(exchanges: &[Exchange], fixtures: &Fixtures) -> Vec<Response> {
    let answers = exchanges.iter().map(|exchange| {
        let settings = &exchange.settings;
        let shelf = Shelf { fixtures, settings };
        ways::natively(&exchange.request, &shelf)
    });
    answers.collect()
}

fn not_natively_only(exchanges: Vec<Exchange>) -> Vec<Exchange> {
    let exchanges = exchanges.into_iter();
    exchanges
        .filter(|exchange| !exchange.natively_only)
        .collect()
}

fn table() -> (Table, Fixtures) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/conformance");
    let table = Table::read(&folder).unwrap_or_else(|error| panic!("{error}"));
    let fixtures = Fixtures::new(&table.common);
    (table, fixtures)
}

/// Fails with every exchange that went otherwise, not with the first alone.
fn assert_all(exchanges: &[Exchange], answers: Vec<Response>) {
    assert!(exchanges.len() > 500, "the table is {}", exchanges.len());
    let answers: Vec<_> = exchanges
        .iter()
        .zip(answers)
        .map(|(exchange, answer)| match exchange.digest_comes_later {
            true => answer.without("repr-digest"),
            false => answer,
        })
        .collect();
    let failures: Vec<_> = exchanges
        .iter()
        .zip(&answers)
        .filter(|(exchange, answer)| exchange.expected != **answer)
        .map(|(exchange, answer)| {
            let difference = difference(&exchange.expected, answer);
            let Exchange { name, request, .. } = exchange;
            format!("{name}\n    {request}\n    {difference}\n")
        })
        .collect();
    assert!(
        failures.is_empty(),
        "{} of {} went otherwise:\n{}",
        failures.len(),
        exchanges.len(),
        failures.concat()
    );
}
