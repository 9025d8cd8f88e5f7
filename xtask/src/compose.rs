//! Composes the guest, a store and an HTTP front into one component that imports WASI only.

use crate::metadata::About;
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;
use wac_graph::types::Package;
use wac_graph::{CompositionGraph, EncodeOptions, NodeId};

/// A component that is made of others.
struct Composition {
    /// Where it is committed, from the workspace's root.
    component: &'static str,
    /// The guest, which decides the answers.
    guest: &'static str,
    /// Where its media lies.
    store: &'static str,
    /// The component that answers HTTP.
    front: &'static str,
    /// The interface that the front exports.
    handler: &'static str,
    /// Description in the component's metadata.
    description: &'static str,
}

impl Composition {
    /// Metadata of the component. Its name is the name of the file.
    fn about(&self, root: &Path) -> Result<About> {
        let name = Path::new(self.component).file_stem().unwrap_or_default();
        About::new(root, &name.to_string_lossy(), self.description)
    }
}

const COMPOSITIONS: [Composition; 4] = [
    Composition {
        component: "components/millpond-http-p2.wasm",
        guest: GUEST,
        store: FOLDER,
        front: "components/http-p2.wasm",
        handler: "wasi:http/incoming-handler@0.2.12",
        description: "Serves media from a folder over the HTTP of WASI 0.2, and needs nothing but WASI",
    },
    Composition {
        component: "components/millpond-http-p2-blobstore.wasm",
        guest: GUEST,
        store: "components/blobstore.wasm",
        front: "components/http-p2.wasm",
        handler: "wasi:http/incoming-handler@0.2.12",
        description: "Serves media from a container of wasi:blobstore over the HTTP of WASI 0.2, and needs nothing but WASI",
    },
    Composition {
        component: "components/millpond-http-p3.wasm",
        guest: GUEST,
        store: FOLDER,
        front: "components/http-p3.wasm",
        handler: "wasi:http/handler@0.3.0",
        description: "Serves media from a folder over the HTTP of WASI 0.3, and needs nothing but WASI",
    },
    // For the tests of the host's limits.
    Composition {
        component: "tests/guests/hostile-http-p2.wasm",
        guest: "tests/guests/hostile.wasm",
        store: FOLDER,
        front: "components/http-p2.wasm",
        handler: "wasi:http/incoming-handler@0.2.12",
        description: "Misbehaves on request over the HTTP of WASI 0.2, for the tests of the host's limits",
    },
];

const GUEST: &str = "host/millpond/component/media-serve.wasm";
const FOLDER: &str = "components/store.wasm";

const MEDIA_SERVE: &str = "millpond:media/media-serve@0.2.0";
const MEDIA_STORE: &str = "millpond:media/media-store@0.2.0";
const SETTINGS: &str = "millpond:media/settings@0.2.0";

/// Composes from the components beneath `at` and writes the results beside them; what they say of themselves is in
/// the manifest at the workspace's root.
pub(crate) fn compose_all(root: &Path, at: &Path) -> Result<()> {
    for composition in &COMPOSITIONS {
        let component = compose(root, at, composition)
            .with_context(|| format!("cannot compose {}", composition.component))?;
        let path = at.join(composition.component);
        fs::write(&path, &component)?;
        println!("{}: {} bytes", path.display(), component.len());
    }
    Ok(())
}

/// The guest is given the store's media and settings, the front the guest; what is left is WASI's.
fn compose(root: &Path, at: &Path, composition: &Composition) -> Result<Vec<u8>> {
    let mut graph = CompositionGraph::new();
    let store = instantiate(&mut graph, at, composition.store)?;
    let guest = instantiate(&mut graph, at, composition.guest)?;
    let front = instantiate(&mut graph, at, composition.front)?;
    let media = graph.alias_instance_export(store, MEDIA_STORE)?;
    let settings = graph.alias_instance_export(store, SETTINGS)?;
    graph.set_instantiation_argument(guest, MEDIA_STORE, media)?;
    graph.set_instantiation_argument(guest, SETTINGS, settings)?;
    let answers = graph.alias_instance_export(guest, MEDIA_SERVE)?;
    graph.set_instantiation_argument(front, MEDIA_SERVE, answers)?;
    // The front has types of `media-serve` that are the store's; left out, the composition would import them.
    graph.set_instantiation_argument(front, MEDIA_STORE, media)?;
    let handler = graph.alias_instance_export(front, composition.handler)?;
    graph.export(handler, composition.handler)?;
    let component = graph.encode(EncodeOptions::default())?;
    composition.about(root)?.write_to(&component)
}

fn instantiate(graph: &mut CompositionGraph, at: &Path, component: &str) -> Result<NodeId> {
    let path = at.join(component);
    let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let package = Package::from_bytes(component, None, bytes, graph.types_mut())?;
    let package = graph.register_package(package)?;
    Ok(graph.instantiate(package))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use wasmparser::{Parser, Payload};

    #[test]
    fn the_committed_compositions_are_made_of_the_committed_components() {
        let root = crate::workspace_root().unwrap();
        for composition in &COMPOSITIONS {
            let committed = fs::read(root.join(composition.component)).unwrap();
            assert!(
                compose(&root, &root, composition).unwrap() == committed,
                "{} is stale: run `cargo xtask guest` and commit what it writes",
                composition.component
            );
        }
    }

    #[test]
    fn the_committed_compositions_say_what_they_are() {
        let root = crate::workspace_root().unwrap();
        for composition in &COMPOSITIONS {
            let component = fs::read(root.join(composition.component)).unwrap();
            let expected = (composition.about(&root).unwrap(), None);
            assert_eq!(crate::metadata::read(&component).unwrap(), expected);
        }
    }

    #[test]
    fn a_composition_imports_wasi_only_and_no_network() {
        let root = crate::workspace_root().unwrap();
        for composition in &COMPOSITIONS {
            let component = fs::read(root.join(composition.component)).unwrap();
            let mut depth = 0;
            for payload in Parser::new(0).parse_all(&component) {
                match payload.unwrap() {
                    Payload::Version { .. } => depth += 1,
                    Payload::End(_) => depth -= 1,
                    Payload::ComponentImportSection(imports) if depth == 1 => {
                        for import in imports {
                            let name = import.unwrap().name.name;
                            let is_wasi = name.starts_with("wasi:");
                            let is_network =
                                name.contains("sockets") || name.contains("outgoing-handler");
                            assert!(is_wasi && !is_network, "{name}");
                        }
                    }
                    _ => {}
                }
            }
        }
    }
}
