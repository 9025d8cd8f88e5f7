//! The files of a crate, and the items that each uses of the others. Re-exports are resolved: the file that defines an item
//! counts, not a file that names it.

use anyhow::{Context, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use syn::visit::Visit;
use syn::{Item, UseTree};

/// A module's path within its crate, as in `store::folder`.
type Module = Vec<String>;

/// The files of one crate that use each other in a circle, or none.
pub(super) fn circles(crate_root: &Path) -> Result<Vec<Vec<PathBuf>>> {
    let sources = crate_root.join("src");
    let first = ["lib.rs", "main.rs"].map(|name| sources.join(name));
    let first = first.iter().find(|path| path.exists());
    let first = first.context("a crate begins with lib.rs or main.rs")?;
    let mut files = Files::default();
    files.read(first, &sources, Vec::new())?;
    let edges = files.edges();
    let circles = circles_of(&edges);
    let relative = |path: &PathBuf| path.strip_prefix(&sources).unwrap_or(path).to_owned();
    Ok(circles
        .iter()
        .map(|circle| circle.iter().map(relative).collect())
        .collect())
}

/// The modules of a crate, each with the file that it is in.
#[derive(Default)]
struct Files {
    modules: BTreeMap<Module, Parsed>,
}

struct Parsed {
    path: PathBuf,
    /// Paths that the code uses, and names that it gives on to others.
    used: Vec<Module>,
    /// Names that are given on, each with the path that it stands for.
    reexports: BTreeMap<String, Module>,
}

impl Files {
    /// Reads a module's file and those of its children, which lie in `folder`.
    fn read(&mut self, path: &Path, folder: &Path, module: Module) -> Result<()> {
        let text =
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let file =
            syn::parse_file(&text).with_context(|| format!("cannot parse {}", path.display()))?;
        self.read_items(&file.items, path, folder, module)
    }

    fn read_items(
        &mut self,
        items: &[Item],
        path: &Path,
        folder: &Path,
        module: Module,
    ) -> Result<()> {
        let mut parsed = Parsed {
            path: path.to_owned(),
            used: Vec::new(),
            reexports: BTreeMap::new(),
        };
        let children: BTreeSet<String> = items.iter().filter_map(child_name).collect();
        let absolute = |path| absolute(&module, &children, path);
        for item in items {
            if is_for_tests(item) {
                continue;
            }
            match item {
                Item::Mod(child) => {
                    let name = child.ident.to_string();
                    let module = [&module[..], std::slice::from_ref(&name)].concat();
                    match &child.content {
                        Some((_, items)) => self.read_items(items, path, folder, module)?,
                        None => self.read_child(&name, folder, module)?,
                    }
                }
                Item::Use(item) => {
                    let is_given_on = !matches!(item.vis, syn::Visibility::Inherited);
                    for (name, path) in leaves(&item.tree) {
                        match absolute(path) {
                            Some(path) if is_given_on => {
                                parsed.reexports.insert(name, path);
                            }
                            Some(path) => parsed.used.push(path),
                            None => {}
                        }
                    }
                }
                item => {
                    let mut paths = Paths::default();
                    paths.visit_item(item);
                    let paths = paths.0.into_iter();
                    parsed.used.extend(paths.filter_map(absolute));
                }
            }
        }
        self.modules.insert(module, parsed);
        Ok(())
    }

    fn read_child(&mut self, name: &str, folder: &Path, module: Module) -> Result<()> {
        let own_folder = folder.join(name);
        let flat = folder.join(name).with_extension("rs");
        if flat.exists() {
            self.read(&flat, &own_folder, module)
        } else {
            self.read(&own_folder.join("mod.rs"), &own_folder, module)
        }
    }

    /// The files that each file uses.
    fn edges(&self) -> BTreeMap<&Path, BTreeSet<&Path>> {
        let mut edges: BTreeMap<&Path, BTreeSet<&Path>> = BTreeMap::new();
        for parsed in self.modules.values() {
            let from = edges.entry(&parsed.path).or_default();
            let targets = parsed.used.iter().filter_map(|path| self.file_of(path, 0));
            from.extend(targets.filter(|to| *to != parsed.path));
        }
        edges
    }

    /// The file in which what a path names is defined.
    fn file_of(&self, path: &[String], depth: usize) -> Option<&Path> {
        /// No name is given on so often.
        const MOST_DEPTH: usize = 16;
        let known = (0..=path.len()).rev();
        let mut known = known.filter(|length| self.modules.contains_key(&path[..*length]));
        let length = known.next()?;
        let parsed = self.modules.get(&path[..length])?;
        let name = path.get(length);
        match name.and_then(|name| parsed.reexports.get(name)) {
            Some(given_on) if depth < MOST_DEPTH => self.file_of(given_on, depth + 1),
            _ => Some(&parsed.path),
        }
    }
}

fn child_name(item: &Item) -> Option<String> {
    match item {
        Item::Mod(child) => Some(child.ident.to_string()),
        _ => None,
    }
}

/// Whether an item is compiled for tests only.
pub(super) fn is_for_tests(item: &Item) -> bool {
    let attributes = match item {
        Item::Mod(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        _ => return false,
    };
    attributes.iter().any(|attribute| {
        let condition = attribute.path().is_ident("cfg");
        let list = attribute.meta.require_list().ok().filter(|_| condition);
        list.is_some_and(|list| {
            let words = list.tokens.to_string();
            words
                .split(|c: char| !c.is_alphanumeric())
                .any(|word| word == "test")
        })
    })
}

/// The names that a `use` brings, each with its path.
fn leaves(tree: &UseTree) -> Vec<(String, Module)> {
    match tree {
        UseTree::Path(path) => {
            let rest = leaves(&path.tree).into_iter();
            let first = path.ident.to_string();
            rest.map(|(name, rest)| (name, [&[first.clone()][..], &rest].concat()))
                .collect()
        }
        UseTree::Name(name) => vec![(name.ident.to_string(), vec![name.ident.to_string()])],
        UseTree::Rename(rename) => {
            vec![(rename.rename.to_string(), vec![rename.ident.to_string()])]
        }
        UseTree::Glob(_) => vec![("*".into(), Vec::new())],
        UseTree::Group(group) => group.items.iter().flat_map(leaves).collect(),
    }
}

/// A path from the crate's root; `None` where it names another crate's item, or one in scope.
fn absolute(module: &[String], children: &BTreeSet<String>, path: Module) -> Option<Module> {
    let mut from = match path.first()?.as_str() {
        "crate" => Vec::new(),
        "self" | "super" => module.to_vec(),
        name if children.contains(name) => module.to_vec(),
        _ => return None,
    };
    let mut rest = path.into_iter().peekable();
    while let Some(word) = rest.next_if(|word| matches!(word.as_str(), "crate" | "self" | "super"))
    {
        if word == "super" {
            from.pop();
        }
    }
    // `use a::{self}` ends so.
    from.extend(rest.filter(|word| word != "self"));
    Some(from)
}

/// The paths of an item's code.
#[derive(Default)]
struct Paths(Vec<Module>);

impl<'a> Visit<'a> for Paths {
    /// `pub(super)` uses nothing.
    fn visit_vis_restricted(&mut self, _: &'a syn::VisRestricted) {}

    fn visit_path(&mut self, path: &'a syn::Path) {
        let words = path.segments.iter();
        self.0
            .push(words.map(|word| word.ident.to_string()).collect());
        syn::visit::visit_path(self, path);
    }
}

/// Strongly connected parts of more than one file, by taking away what has no way out until nothing changes.
fn circles_of(edges: &BTreeMap<&Path, BTreeSet<&Path>>) -> Vec<Vec<PathBuf>> {
    let reached = |from: &Path| {
        let mut seen = BTreeSet::new();
        let mut next: Vec<&Path> = edges.get(from).into_iter().flatten().copied().collect();
        while let Some(file) = next.pop() {
            if seen.insert(file) {
                next.extend(edges.get(file).into_iter().flatten());
            }
        }
        seen
    };
    let reached: BTreeMap<&Path, BTreeSet<&Path>> =
        edges.keys().map(|file| (*file, reached(file))).collect();
    let mut circles = BTreeSet::new();
    for (file, others) in &reached {
        if others.contains(file) {
            let back =
                |other: &&&Path| reached.get(**other).is_some_and(|from| from.contains(file));
            let circle = others.iter().filter(back);
            circles.insert(circle.map(|file| file.to_path_buf()).collect::<Vec<_>>());
        }
    }
    circles.into_iter().collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn circles_in(files: &[(&str, &str)]) -> Vec<Vec<PathBuf>> {
        let root = std::env::temp_dir().join(format!("millpond-files-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        for (path, text) in files {
            let path = root.join("src").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let circles = circles(&root).unwrap();
        fs::remove_dir_all(&root).unwrap();
        circles
    }

    #[test]
    fn a_circle_is_found_through_what_a_parent_gives_on_and_not_in_tests() {
        let root = ("lib.rs", "mod a; mod b; pub use a::A;");
        let b = ("b.rs", "pub struct B;");
        assert!(circles_in(&[root, ("a.rs", "use crate::b::B; pub struct A(B);"), b]).is_empty());
        let in_tests = "pub struct B; #[cfg(test)] mod tests { use crate::A; }";
        let a = ("a.rs", "use crate::b::B; pub struct A(B);");
        assert!(circles_in(&[root, a, ("b.rs", in_tests)]).is_empty());
        for b in [
            "use crate::A; pub struct B(Box<A>);",
            "pub struct B(Box<crate::A>);",
            "pub struct B(Box<super::A>);",
            "mod inner { pub struct C(Box<crate::a::A>); } pub struct B;",
        ] {
            let circle = ["a.rs", "b.rs"].map(PathBuf::from).to_vec();
            assert_eq!(circles_in(&[root, a, ("b.rs", b)]), [circle], "{b}");
        }
    }
}
