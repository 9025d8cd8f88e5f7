//! Guests that misbehave: each is ended by its limit, with the limit's name, and nobody else notices.

use crate::client::reset;
use crate::host::{Host, Setup, with};
use millpond::{Limits, Outcome, Source};
use millpond_server::ConnectionLimits;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};

async fn hostile_host() -> Host {
    let bytes = include_bytes!("guests/hostile.wasm");
    let host = Host::start_with(Setup {
        source: Source::from_bytes("hostile", bytes.to_vec()),
        mount_path: "/",
        // Room for deeds that need some memory to reach another limit.
        limits: with(|limits: &mut Limits| limits.request_memory_bytes = 2 << 20),
        ..Setup::default()
    })
    .await;
    host.write("small.txt", b"small");
    host
}

/// The same deeds in a component for `wasi:http`, whose instance lives as long as its answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_deed_behind_wasi_http_is_ended_while_others_go_on() {
    let bytes = include_bytes!("guests/hostile-http-p2.wasm");
    let host = Host::start_with(Setup {
        source: Source::from_bytes("hostile-http-p2", bytes.to_vec()),
        mount_path: "/",
        limits: with(|limits: &mut Limits| {
            limits.request_memory_bytes = 3 << 20;
            // A guest that takes handles or memory has to reach that limit first, on a busy machine too.
            limits.cpu = Duration::from_secs(2);
        }),
        ..Setup::default()
    })
    .await;
    host.write("small.txt", b"small");
    // The host detects the fault before it sends the head, or truncates the body.
    for (deed, status) in [
        ("memory-hog", Some(500)),
        ("hundred-thousand-fields", Some(500)),
        ("endless-parts", Some(500)),
        ("growth-in-a-call", Some(500)),
        ("handle-hoarder", Some(500)),
        ("stack", Some(500)),
        ("spinner", Some(503)),
        ("trap", Some(500)),
        ("connection-field", Some(500)),
        ("broken-field-value", Some(500)),
        ("broken-field-name", Some(500)),
        ("status-1000", Some(500)),
        ("many-fields", Some(500)),
        ("lying-part", None),
        ("lying-length", None),
    ] {
        let response = host.get(&format!("/hostile/{deed}")).await;
        match status {
            Some(status) => assert_eq!(response.status, status, "{deed}"),
            None => assert!(!response.whole, "{deed}: {response:?}"),
        }
        let small = host.get("/small.txt").await;
        assert_eq!(
            (small.status, &small.body[..]),
            (200, &b"small"[..]),
            "after {deed}"
        );
    }
    let registry = std::sync::Arc::clone(host.registry());
    host.stop().await;
    assert_eq!(
        (registry.in_use().requests(), registry.in_use().stores()),
        (0, 0)
    );
    assert_eq!(registry.snapshot().total().total(), 0);
}

/// A guest written as a core module in text.
pub(crate) fn guest_of_wat(wat: &str) -> Source {
    let mut module = wat::parse_str(wat).unwrap();
    let mut resolve = wit_parser::Resolve::default();
    let wit = concat!(env!("CARGO_MANIFEST_DIR"), "/../../wit");
    let (package, _) = resolve.push_path(wit).unwrap();
    let world = resolve
        .select_world(&[package], Some("media-guest"))
        .unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    let component = ComponentEncoder::default()
        .validate(true)
        .module(&module)
        .unwrap()
        .encode()
        .unwrap();
    Source::from_bytes("wat", component)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_deed_is_ended_by_its_limit_while_others_go_on() {
    let host = hostile_host().await;
    for (deed, status, message, end) in [
        (
            "memory-hog",
            500,
            "Request limit reached: guest memory",
            Outcome::Limited,
        ),
        (
            "endless-string",
            500,
            "Request limit reached: lifted bytes",
            Outcome::Limited,
        ),
        (
            "endless-key",
            500,
            "Request limit reached: lifted bytes",
            Outcome::Limited,
        ),
        (
            "many-fields",
            500,
            "Request limit reached: lifted bytes",
            Outcome::Limited,
        ),
        (
            "small-lifts",
            500,
            "Request limit reached: lifted bytes",
            Outcome::Limited,
        ),
        (
            "hundred-thousand-fields",
            500,
            "Request limit reached: guest memory",
            Outcome::Limited,
        ),
        (
            "endless-parts",
            500,
            "Request limit reached: guest memory",
            Outcome::Limited,
        ),
        (
            "growth-in-a-call",
            500,
            "Request limit reached: guest memory",
            Outcome::Limited,
        ),
        (
            "handle-hoarder",
            500,
            "Request limit reached: handles",
            Outcome::Limited,
        ),
        (
            "stream-hoarder",
            500,
            "Request limit reached: handles",
            Outcome::Limited,
        ),
        (
            "stack",
            500,
            "Request limit reached: stack",
            Outcome::Limited,
        ),
        ("spinner", 503, "Request took too long", Outcome::Limited),
        ("trap", 500, "Media component failed", Outcome::Failed),
        ("lying-part", 500, "Media component failed", Outcome::Failed),
        (
            "lying-length",
            500,
            "Media component failed",
            Outcome::Failed,
        ),
        (
            "length-is-no-number",
            500,
            "Media component failed",
            Outcome::Failed,
        ),
        (
            "connection-field",
            500,
            "Media component failed",
            Outcome::Failed,
        ),
        (
            "broken-field-value",
            500,
            "Media component failed",
            Outcome::Failed,
        ),
        (
            "broken-field-name",
            500,
            "Media component failed",
            Outcome::Failed,
        ),
        ("status-99", 500, "Media component failed", Outcome::Failed),
        ("status-101", 500, "Media component failed", Outcome::Failed),
        (
            "status-1000",
            500,
            "Media component failed",
            Outcome::Failed,
        ),
    ] {
        let before = (
            host.registry().ended_requests(end),
            host.registry().ended_requests(Outcome::Completed),
        );
        let target = format!("/hostile/{deed}");
        let hostile = host.get(&target);
        let normal = async {
            let mut normal = tokio::task::JoinSet::new();
            for _ in 0..100 {
                normal.spawn(crate::client::request(
                    host.address,
                    "GET",
                    "/small.txt",
                    &[],
                ));
            }
            normal.join_all().await
        };
        let (hostile, normal) = tokio::join!(hostile, normal);
        assert_eq!((hostile.status, hostile.whole), (status, true), "{deed}");
        assert_eq!(hostile.error(), message, "{deed}");
        assert_eq!(hostile.field("retry-after").is_some(), status == 503);
        for response in normal {
            assert_eq!((response.status, &response.body[..]), (200, &b"small"[..]));
        }
        host.registry().idle().await;
        let after = (
            host.registry().ended_requests(end),
            host.registry().ended_requests(Outcome::Completed),
        );
        assert_eq!(after, (before.0 + 1, before.1 + 100), "{deed}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_and_memories_are_summed() {
    for (wat, message) in [
        (
            include_str!("guests/table-hog.wat"),
            "Request limit reached: tables",
        ),
        (
            include_str!("guests/many-memories.wat"),
            "Request limit reached: guest memory",
        ),
    ] {
        let host = Host::start_with(Setup {
            source: guest_of_wat(wat),
            ..Setup::default()
        })
        .await;
        let response = host.get("/").await;
        assert_eq!((response.status, response.error()), (500, message.into()));
        host.registry().idle().await;
    }
}

#[tokio::test]
async fn a_guest_may_read_what_it_is_given_and_the_rest_is_sent() {
    let host = hostile_host().await;
    assert_eq!(host.get("/hostile/reads-media").await.body, b"small");
    let rest = host.get("/hostile/reads-then-sends").await;
    assert_eq!((rest.status, &rest.body[..]), (200, &b"all"[..]));
    host.registry().idle().await;
}

#[tokio::test]
async fn time_is_limited_in_all_not_only_on_the_cpu() {
    let bytes = include_bytes!("guests/hostile.wasm");
    let host = Host::start_with(Setup {
        source: Source::from_bytes("hostile", bytes.to_vec()),
        limits: with(|limits: &mut Limits| {
            limits.cpu = Duration::from_secs(3600);
            limits.wall = Duration::from_millis(50);
        }),
        ..Setup::default()
    })
    .await;
    let response = host.get("/hostile/spinner").await;
    assert_eq!(response.status, 503);
    host.registry().idle().await;
    assert_eq!(host.registry().ended_requests(Outcome::Limited), 1);
}

#[tokio::test]
async fn a_client_that_leaves_while_the_guest_computes_takes_the_instance_along() {
    let bytes = include_bytes!("guests/hostile.wasm");
    let hour = Duration::from_secs(3600);
    let host = Host::start_with(Setup {
        source: Source::from_bytes("hostile", bytes.to_vec()),
        limits: with(|limits: &mut Limits| {
            limits.cpu = hour;
            limits.wall = hour;
        }),
        ..Setup::default()
    })
    .await;
    let mut client = tokio::net::TcpStream::connect(host.address).await.unwrap();
    client
        .write_all(b"GET /hostile/spinner HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    while host.registry().in_use().stores() == 0 {
        tokio::task::yield_now().await;
    }
    reset(client);
    host.registry().idle().await;
    assert_eq!(host.registry().ended_requests(Outcome::Aborted), 1);
}

#[tokio::test]
async fn more_requests_than_instances_wait_for_their_turn_or_are_told_to() {
    let bytes = include_bytes!("guests/hostile.wasm");
    let host = Host::start_with(Setup {
        source: Source::from_bytes("hostile", bytes.to_vec()),
        mount_path: "/",
        limits: with(|limits: &mut Limits| {
            limits.concurrent_instances = 1;
            limits.cpu = Duration::from_secs(3);
        }),
        ..Setup::default()
    })
    .await;
    host.write("small.txt", b"small");
    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let address = host.address;
        requests.spawn(crate::client::request(address, "GET", "/small.txt", &[]));
    }
    // On a machine that is busy enough, some wait in vain.
    let mut rejected = 0;
    for response in requests.join_all().await {
        match response.status {
            200 => {}
            503 => rejected += 1,
            status => panic!("{status}"),
        }
    }
    assert!(rejected < 50);
    // One instance computes for seconds; who comes meanwhile is told to come again.
    let spinner = tokio::spawn(crate::client::request(
        host.address,
        "GET",
        "/hostile/spinner",
        &[],
    ));
    while host.registry().in_use().stores() == 0 {
        tokio::task::yield_now().await;
    }
    let refused = host.get("/small.txt").await;
    assert_eq!(
        (refused.status, refused.error()),
        (503, "Server is busy".into())
    );
    assert_eq!(refused.field("retry-after"), Some("1"));
    assert_eq!(spinner.await.unwrap().status, 503);
    let ended = host.registry().ended_requests(Outcome::Rejected);
    assert_eq!(ended, rejected + 1);
}

fn patient(header_timeout: Duration) -> ConnectionLimits {
    let mut limits = ConnectionLimits::default();
    limits.header_timeout = header_timeout;
    limits
}

/// A component with so many further core instances, which do nothing: as one has that a language runtime came with.
pub(crate) fn with_core_instances(component: &[u8], count: usize) -> Vec<u8> {
    use wasm_encoder::{ComponentSection, InstanceSection, Module, ModuleArg, ModuleSection};
    let (mut depth, mut modules) = (0, 0);
    for payload in wasmparser::Parser::new(0).parse_all(component) {
        match payload.unwrap() {
            wasmparser::Payload::Version { .. } => depth += 1,
            wasmparser::Payload::End(_) => depth -= 1,
            wasmparser::Payload::ModuleSection { .. } if depth == 1 => modules += 1,
            _ => {}
        }
    }
    let mut component = component.to_vec();
    ModuleSection(&Module::new()).append_to_component(&mut component);
    let mut instances = InstanceSection::new();
    for _ in 0..count {
        instances.instantiate(modules, std::iter::empty::<(&str, ModuleArg)>());
    }
    instances.append_to_component(&mut component);
    component
}

/// Once, the pool held four core instances for each that may exist, and the component could have 32.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_many_instances_of_many_parts_exist_at_a_time_as_are_set_aside() {
    let component = with_core_instances(include_bytes!("guests/hostile.wasm"), 50);
    let hour = Duration::from_secs(3600);
    let host = Host::start_with(Setup {
        source: Source::from_bytes("many parts", component),
        mount_path: "/",
        limits: with(|limits: &mut Limits| {
            // Plenty beside what other tests hold in this process.
            limits.memory_bytes = 2 << 30;
            limits.concurrent_instances = 20;
            // Equal questions at once would be asked once.
            limits.response_cache_bytes = 0;
            limits.cpu = hour;
            limits.wall = hour;
        }),
        // While all others spin, a head takes its time.
        connections: patient(hour),
        ..Setup::default()
    })
    .await;
    host.write("small.txt", b"small");
    let instances = host.memory_plan().instances;
    assert_eq!(instances, 20);
    let mut clients = Vec::new();
    for _ in 0..instances {
        let mut client = tokio::net::TcpStream::connect(host.address).await.unwrap();
        let head = b"GET /hostile/spinner HTTP/1.1\r\nhost: a\r\n\r\n";
        client.write_all(head).await.unwrap();
        clients.push(client);
    }
    while host.registry().in_use().stores() < instances {
        assert_eq!(
            host.registry().ended_requests(Outcome::Rejected),
            0,
            "one was rejected"
        );
        tokio::task::yield_now().await;
    }
    let refused = host.get("/small.txt").await;
    assert_eq!(
        (refused.status, refused.error()),
        (503, "Server is busy".into())
    );
    assert_eq!(host.registry().in_use().stores(), instances);
    clients.into_iter().for_each(reset);
    host.registry().idle().await;
    let answer = host.get("/small.txt").await;
    assert_eq!((answer.status, &answer.body[..]), (200, &b"small"[..]));
}

#[tokio::test]
async fn a_component_of_too_many_parts_is_refused_at_the_start() {
    let component = with_core_instances(include_bytes!("guests/hostile.wasm"), 64);
    let source = Source::from_bytes("too many parts", component);
    let error = source.inspect(&Limits::default()).unwrap_err().to_string();
    assert!(error.contains("core module instances"), "{error}");
}
