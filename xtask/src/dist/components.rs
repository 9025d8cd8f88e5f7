//! The components, each with the commit that it is of.

use super::release::Release;
use super::sbom;
use crate::{compose, guest, metadata};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::Path;

/// A released component.
struct Released {
    /// Where it is committed, from the workspace's root.
    component: &'static str,
    /// The crates that it is made of.
    crates: &'static [&'static str],
}

const RELEASED: [Released; 8] = [
    Released {
        component: "host/millpond/component/media-serve.wasm",
        crates: &["millpond-media-serve"],
    },
    Released {
        component: "components/store.wasm",
        crates: &["millpond-store"],
    },
    Released {
        component: "components/blobstore.wasm",
        crates: &["millpond-blobstore"],
    },
    Released {
        component: "components/http-p2.wasm",
        crates: &["millpond-http-p2"],
    },
    Released {
        component: "components/http-p3.wasm",
        crates: &["millpond-http-p3"],
    },
    Released {
        component: "components/millpond-http-p2.wasm",
        crates: &["millpond-media-serve", "millpond-http-p2", "millpond-store"],
    },
    Released {
        component: "components/millpond-http-p2-blobstore.wasm",
        crates: &[
            "millpond-media-serve",
            "millpond-http-p2",
            "millpond-blobstore",
        ],
    },
    Released {
        component: "components/millpond-http-p3.wasm",
        crates: &["millpond-media-serve", "millpond-http-p3", "millpond-store"],
    },
];

/// Builds the components from source and puts them into `components/`, each with its list of what is inside.
///
/// The program and the packages have the committed component inside, so what is built has to be what is committed.
pub(super) fn make(release: &Release) -> Result<()> {
    let fresh = release.root.join("target/dist-components");
    guest::build_all(&release.root, &fresh)?;
    compose::compose_all(&release.root, &fresh)?;
    let folder = release.folder("components")?;
    for released in &RELEASED {
        let component = fs::read(fresh.join(released.component))?;
        ensure!(
            component == fs::read(release.root.join(released.component))?,
            "{} is not what its sources give with the toolchain that is here: run `cargo xtask guest` and commit \
             what it writes",
            released.component
        );
        let component = metadata::write_revision(&component, &release.revision)?;
        let name = Path::new(released.component)
            .file_stem()
            .and_then(|name| name.to_str())
            .context("a component without a name")?;
        let file = format!("{name}-{}", release.package.version);
        fs::write(folder.join(format!("{file}.wasm")), component)?;
        let subject = sbom::Subject {
            name,
            kind: sbom::Kind::Library,
            crates: released.crates,
            target: guest::TARGET,
        };
        sbom::write(release, &subject, &folder.join(format!("{file}.cdx.json")))?;
    }
    Ok(())
}
