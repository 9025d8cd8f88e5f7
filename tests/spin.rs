//! The manifest for Spin, which no test can run. It has the form that Spin reads, its files exist, and its component imports
//! only interfaces that Spin provides.

use crate::hosts::{component_path, root};
use millpond::{Limits, Source};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;

/// A manifest of version 2, as far as ours goes. Spin refuses what it does not know, and so does this.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    spin_manifest_version: u64,
    application: Application,
    trigger: Triggers,
    component: BTreeMap<String, Component>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Application {
    name: String,
    version: String,
    #[serde(rename = "description")]
    _description: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Triggers {
    http: Vec<HttpTrigger>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HttpTrigger {
    route: String,
    component: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Component {
    source: String,
    files: Vec<Mount>,
    allowed_outbound_hosts: Vec<String>,
    environment: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Mount {
    source: String,
    destination: String,
}

fn manifest() -> Manifest {
    let text = fs::read_to_string(root().join("plugins/spin/spin.toml")).unwrap();
    toml::from_str(&text).unwrap()
}

#[test]
fn the_manifest_names_what_is_there() {
    let manifest = manifest();
    assert_eq!(manifest.spin_manifest_version, 2);
    let application = &manifest.application;
    assert_eq!(application.name, "millpond");
    assert_eq!(application.version, env!("CARGO_PKG_VERSION"));
    let [trigger] = &manifest.trigger.http[..] else {
        panic!("one component answers everything");
    };
    // The component knows its own routes.
    assert_eq!(trigger.route, "/...");
    let component = &manifest.component[&trigger.component];
    assert_eq!(manifest.component.len(), 1);
    let source = root().join("plugins/spin").join(&component.source);
    let committed = root().join("components/millpond-http-p2.wasm");
    assert_eq!(source.canonicalize().unwrap(), committed);
    assert!(component.allowed_outbound_hosts.is_empty());
    let [mount] = &component.files[..] else {
        panic!("the component serves the first directory of those that it is given");
    };
    assert_eq!((&mount.source[..], &mount.destination[..]), ("media", "/"));
    let settings = fs::read_to_string(root().join("wit/settings.wit")).unwrap();
    for name in component.environment.keys() {
        let key = name.strip_prefix("MILLPOND_").unwrap();
        let key = key.to_lowercase().replace('_', "-");
        assert!(settings.contains(&format!(" {key}")), "no setting is {key}");
    }
}

/// Spin gives components all of WASI 0.2; by sockets, only to where the manifest says.
#[test]
fn the_component_asks_for_no_more_than_spin_gives() {
    const GIVEN: [&str; 6] = ["cli", "clocks", "filesystem", "http", "io", "random"];
    let source = Source::from_file(&component_path("millpond-http-p2.wasm")).unwrap();
    let mut limits = Limits::default();
    limits.request_memory_bytes = 2 << 20;
    let inspection = source.inspect(&limits).unwrap();
    for import in &inspection.imports {
        let (package, version) = import.split_once('@').unwrap();
        assert!(version.starts_with("0.2."), "{import}");
        let (namespace, interface) = package.split_once(':').unwrap();
        let (package, _) = interface.split_once('/').unwrap();
        assert_eq!(namespace, "wasi", "{import}");
        assert!(GIVEN.contains(&package), "{import}");
    }
    let handler = "wasi:http/incoming-handler@0.2.";
    assert!(
        inspection
            .exports
            .iter()
            .any(|export| export.starts_with(handler))
    );
}
