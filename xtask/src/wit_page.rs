//! Makes the browsable page of the interface out of its WIT files.

use anyhow::{Context, Result};
use std::fs;
use std::path::Path;

/// Where the page is committed, from the workspace's root.
const PAGE: &str = "docs/wit.html";

/// Writes the page.
pub(crate) fn write(root: &Path) -> Result<()> {
    fs::write(root.join(PAGE), render(root)?)?;
    println!("{PAGE}");
    Ok(())
}

fn render(root: &Path) -> Result<String> {
    let mut resolve = wit_parser::Resolve::default();
    let (package, _) = resolve.push_path(root.join("wit"))?;
    let world = resolve.select_world(&[package], Some("media-guest"))?;
    let mut files = wit_bindgen_core::Files::default();
    let mut generator = wit_bindgen_markdown::Opts::default().build();
    wit_bindgen_core::WorldGenerator::generate(&mut *generator, &mut resolve, world, &mut files)?;
    let (_, body) = files
        .iter()
        .find(|(name, _)| name.ends_with(".html"))
        .context("the generator made no page")?;
    Ok(format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>millpond:media, the interface</title>\n<style>{STYLE}</style>\n\
         <body>\n{}\n</body>\n</html>\n",
        str::from_utf8(body)?
    ))
}

const STYLE: &str = "body{max-width:52rem;margin:2rem auto;padding:0 1rem;\
font:16px/1.55 system-ui,sans-serif;color:#1d2b36;background:#fbfdfe}\
h1,h2,h3,h4{line-height:1.25;color:#0d3b55}\
code{background:#e8f1f5;padding:.1em .3em;border-radius:3px;font-size:.92em}\
a{color:#0b6a94;text-decoration:none}a:hover{text-decoration:underline}\
hr{border:0;border-top:1px solid #cfdfe6}li p{margin:.2rem 0}";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_committed_page_is_made_of_these_wit_files() {
        let root = crate::workspace_root().unwrap();
        let page = fs::read_to_string(root.join(PAGE)).unwrap();
        assert!(
            page == render(&root).unwrap(),
            "{PAGE} is stale: run `cargo xtask wit-page` and commit what it writes"
        );
    }
}
