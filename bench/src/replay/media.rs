//! The files that are asked for: made up, of the sizes that the original's exercise GIFs have.

use crate::store::{self, Media};
use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rand_distr::{Distribution, LogNormal};
use std::fs;
use std::path::Path;

/// Mean of the sizes before they are clipped, in bytes.
const MEAN_BYTES: f64 = 500_000.0;

/// Standard deviation of the sizes' logarithms: most then lie between 150 KB and 1.2 MB.
const SIGMA: f64 = 0.6;

/// The least and the most that a file has.
const LEAST_BYTES: f64 = 50_000.0;
const MOST_BYTES: f64 = 2_000_000.0;

/// Makes files, and a store of them.
pub(crate) fn make_store(
    millpond: &Path,
    to: &Path,
    files: usize,
    seed: u64,
) -> Result<Vec<Media>> {
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let sizes = LogNormal::new(MEAN_BYTES.ln() - SIGMA * SIGMA / 2.0, SIGMA)?;
    let mut rng = StdRng::seed_from_u64(seed);
    for number in 0..files {
        let size = sizes.sample(&mut rng).clamp(LEAST_BYTES, MOST_BYTES) as usize;
        let path = folder.path().join(format!("{number}.gif"));
        fs::write(&path, gif_like(size, &mut rng))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    let media = store::add(millpond, &[folder.path().to_owned()], to)?;
    ensure!(
        media.len() == files,
        "millpond add took {} of {files} files",
        media.len()
    );
    Ok(media)
}

/// Bytes that begin and end as a GIF does, with noise between that nothing can compress.
fn gif_like(size: usize, rng: &mut StdRng) -> Vec<u8> {
    const HEAD: &[u8] = b"GIF89a";
    const TRAILER: u8 = b';';
    let mut content = vec![0; size];
    rng.fill_bytes(&mut content);
    content[..HEAD.len()].copy_from_slice(HEAD);
    content[size - 1] = TRAILER;
    content
}
