//! The conformance table: requests and expected responses, one row for each case, in `*.toml` in this folder.
//!
//! [`table`] reads the rows. [`exchange`] makes requests of them, with the expected response of each byte for byte. The tests
//! send them natively to the guest's code, to the component in this process, and to a host over a socket. All three have to
//! return the expected response. [`properties`] tests the invariants of all requests.

mod exchange;
mod fixtures;
mod properties;
// The page uses more of a row than the tests.
#[allow(dead_code)]
mod table;
mod ways;
mod wire;

use exchange::{Exchange, Response, difference};
use fixtures::{Fixtures, Shelf};
use std::net::SocketAddr;
use std::path::Path;
pub(crate) use table::Settings;
use table::{Table, Topic};
pub(crate) use ways::config_toml;
use wire::Wire;

#[test]
fn the_guest_natively_answers_as_the_table_says() {
    let (table, fixtures) = table();
    let exchanges = exchange::passing(&table, &fixtures);
    assert_all(&exchanges, natively(&exchanges, &fixtures));
}

#[test]
fn known_failures_still_fail() {
    let (table, fixtures) = table();
    let exchanges = exchange::known_failures(&table, &fixtures);
    let answers = natively(&exchanges, &fixtures);
    for (Exchange { name, expected, .. }, answer) in exchanges.iter().zip(&answers) {
        assert!(
            expected != answer,
            "{name}: passes now, so remove its known-failure"
        );
    }
}

#[tokio::test]
async fn the_component_in_this_process_answers_as_the_table_says() {
    let (table, fixtures) = table();
    let exchanges = exchange::passing(&table, &fixtures);
    let exchanges = not_natively_only(exchanges);
    let mut components = ways::Components::new(&fixtures, 0);
    let mut answers = Vec::new();
    for exchange in &exchanges {
        let component = components.with(&exchange.settings);
        answers.push(component.ask(&exchange.request).await);
        assert_eq!(component.registry().response_cache_hits(), 0);
    }
    assert_all(&exchanges, answers);
}

/// Each request is sent twice in a row, so that the second response is from the cache if the guest allows it. All of it runs
/// once more, when the fields are known that responses depend on.
#[tokio::test]
async fn responses_from_the_cache_are_as_the_table_says() {
    let (table, fixtures) = table();
    let exchanges = exchange::passing(&table, &fixtures);
    let exchanges = not_natively_only(exchanges);
    let mut components =
        ways::Components::new(&fixtures, millpond::Limits::default().response_cache_bytes);
    for turn in 0..2 {
        let (mut first, mut second) = (Vec::new(), Vec::new());
        let mut reused = 0;
        for exchange in &exchanges {
            let component = components.with(&exchange.settings);
            first.push(component.ask(&exchange.request).await);
            let before = component.registry().response_cache_hits();
            second.push(component.ask(&exchange.request).await);
            let is_reused = component.registry().response_cache_hits() > before;
            let is_signed = exchange.request.target.contains("signature=");
            assert!(!(is_reused && is_signed), "{}", exchange.name);
            reused += usize::from(is_reused);
        }
        assert_all(&exchanges, first);
        assert_all(&exchanges, second);
        // The others are errors, private media, preflights and several ranges, which the guest never allows to be cached.
        assert!(
            turn == 0 || reused > exchanges.len() / 3,
            "{reused} of {}",
            exchanges.len()
        );
    }
}

#[tokio::test]
async fn the_host_over_a_socket_answers_as_the_table_says() {
    assert_over(Wire::plain()).await;
}

#[tokio::test]
async fn the_host_over_http2_answers_as_the_table_says() {
    assert_over(Wire::http2()).await;
}

#[tokio::test]
async fn the_host_over_tls_answers_as_the_table_says() {
    assert_over(Wire::tls()).await;
}

#[tokio::test]
async fn the_host_over_http2_in_tls_answers_as_the_table_says() {
    assert_over(Wire::http2_in_tls()).await;
}

async fn assert_over(wire: Wire) {
    let certificate = wire.certificate();
    let all = |_: &str| true;
    let differences = put_over(wire, all, async |fixtures, settings| {
        let host = ways::host(fixtures, settings, certificate.clone()).await;
        (host.address, host)
    })
    .await;
    assert_none(differences.exchanges, &differences.failures);
}

/// Differences between a host's responses and the table.
pub(crate) struct Differences {
    pub(crate) exchanges: usize,
    pub(crate) failures: Vec<String>,
    /// Title of each topic, its number of exchanges, and the number of those without a difference.
    pub(crate) topics: Vec<(String, usize, usize)>,
}

/// Runs the table against another host over sockets, for targets that the host `serves`. `start` starts it over the fixtures
/// with the settings of a row. It returns its address, and a value that keeps it running.
pub(crate) async fn put_to<K>(
    serves: impl Fn(&str) -> bool,
    start: impl AsyncFnMut(&Fixtures, &Settings) -> (SocketAddr, K),
) -> Differences {
    put_over(Wire::plain(), serves, start).await
}

async fn put_over<K>(
    wire: Wire,
    serves: impl Fn(&str) -> bool,
    start: impl AsyncFnMut(&Fixtures, &Settings) -> (SocketAddr, K),
) -> Differences {
    let (table, fixtures) = table();
    let exchanges = exchange::passing(&table, &fixtures);
    let mut exchanges = not_natively_only(exchanges);
    exchanges.retain(|exchange| serves(&exchange.request.target));
    let mut hosts = ways::Addresses::new(&fixtures, wire, start);
    let mut answers = Vec::new();
    for exchange in &exchanges {
        answers.push(hosts.ask(&exchange.settings, &exchange.request).await);
    }
    let failures = failures(&exchanges, answers);
    let count_in = |topic: &Topic, names: &mut dyn Iterator<Item = &str>| {
        let is_in = |name: &&str| {
            let mut groups = topic.groups.iter();
            groups.any(|group| name.starts_with(&format!("{} / ", group.title)))
        };
        names.filter(is_in).count()
    };
    let topics = table.topics.iter().map(|topic| {
        let all = count_in(topic, &mut exchanges.iter().map(|exchange| &*exchange.name));
        let wrong = count_in(topic, &mut failures.iter().map(|failure| &**failure));
        (topic.title.clone(), all, all - wrong)
    });
    Differences {
        exchanges: exchanges.len(),
        topics: topics.collect(),
        failures,
    }
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
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/conformance");
    let table = Table::read(&folder).unwrap_or_else(|error| panic!("{error}"));
    let fixtures = Fixtures::new(&table.common);
    (table, fixtures)
}

/// Fails with every exchange that went otherwise, not with the first alone.
fn assert_all(exchanges: &[Exchange], answers: Vec<Response>) {
    let answers = answers.into_iter().map(Ok);
    assert_none(exchanges.len(), &failures(exchanges, answers));
}

fn assert_none(exchanges: usize, failures: &[String]) {
    assert!(exchanges > 500, "the table is {exchanges}");
    assert!(
        failures.is_empty(),
        "{} of {exchanges} went otherwise:\n{}",
        failures.len(),
        failures.concat()
    );
}

fn failures(
    exchanges: &[Exchange],
    answers: impl IntoIterator<Item = Result<Response, String>>,
) -> Vec<String> {
    exchanges
        .iter()
        .zip(answers)
        .filter_map(|(exchange, answer)| {
            let Exchange { name, request, .. } = exchange;
            let answer = answer.map(|answer| match exchange.digest_comes_later {
                true => answer.without("repr-digest"),
                false => answer,
            });
            let difference = match answer {
                Ok(answer) if answer == exchange.expected => return None,
                Ok(answer) => difference(&exchange.expected, &answer),
                Err(error) => error,
            };
            Some(format!("{name}\n    {request}\n    {difference}\n"))
        })
        .collect()
}
