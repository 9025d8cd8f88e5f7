//! Names of types: each stands for one type in the crates of the host, the guest and the components.

use super::files::is_for_tests;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use syn::visit::Visit;
use syn::{Attribute, Ident, Item};
use walkdir::WalkDir;

/// Places that define types of one name.
pub(super) type Definitions = BTreeMap<String, Vec<Definition>>;

/// A place that defines a type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Definition {
    path: PathBuf,
    /// Whether the definition, or a module around it, has a `cfg` attribute.
    is_conditional: bool,
}

/// Adds the types that the sources in a folder define, tests apart.
///
/// Associated types are left out, since code names them by their trait. So is the code that macros write.
pub(super) fn collect(folder: &Path, definitions: &mut Definitions) -> Result<()> {
    for entry in WalkDir::new(folder).sort_by_file_name() {
        let entry = entry.with_context(|| format!("cannot read {}", folder.display()))?;
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            let source = fs::read_to_string(path);
            let source = source.with_context(|| format!("cannot read {}", path.display()))?;
            let file = syn::parse_file(&source);
            let file = file.with_context(|| format!("cannot parse {}", path.display()))?;
            let mut visitor = Visitor {
                path,
                conditions: 0,
                definitions,
            };
            visitor.visit_file(&file);
        }
    }
    Ok(())
}

/// The names that stand for several types, each with the files that define them.
///
/// Definitions in one file that each depend on a `cfg` are alternatives of one type. So are those of the names in
/// `alternatives`, each of which has its reason beside it.
pub(super) fn duplicates<'a>(
    definitions: &'a Definitions,
    alternatives: &[(&str, &str)],
) -> Vec<(&'a str, Vec<&'a Path>)> {
    let is_listed = |name: &str| alternatives.iter().any(|(listed, _)| *listed == name);
    let several = definitions.iter().filter(|(name, places)| {
        let Some((first, others)) = places.split_first() else {
            return false;
        };
        let is_alternative = |other: &Definition| {
            first.path == other.path && first.is_conditional && other.is_conditional
        };
        !others.iter().all(is_alternative) && !is_listed(name)
    });
    let paths = |places: &'a [Definition]| places.iter().map(|place| &*place.path).collect();
    several
        .map(|(name, places)| (name.as_str(), paths(places)))
        .collect()
}

/// Collects the definitions of a file.
struct Visitor<'a> {
    path: &'a Path,
    /// Number of modules with a `cfg` attribute around the current item.
    conditions: usize,
    definitions: &'a mut Definitions,
}

impl Visitor<'_> {
    fn add(&mut self, name: &Ident, attributes: &[Attribute]) {
        let definition = Definition {
            path: self.path.to_owned(),
            is_conditional: self.conditions > 0 || has_condition(attributes),
        };
        let places = self.definitions.entry(name.to_string()).or_default();
        places.push(definition);
    }
}

fn has_condition(attributes: &[Attribute]) -> bool {
    attributes
        .iter()
        .any(|attribute| attribute.path().is_ident("cfg"))
}

impl<'a> Visit<'a> for Visitor<'_> {
    fn visit_item(&mut self, item: &'a Item) {
        if is_for_tests(item) {
            return;
        }
        match item {
            Item::Enum(item) => self.add(&item.ident, &item.attrs),
            Item::Struct(item) => self.add(&item.ident, &item.attrs),
            Item::Trait(item) => self.add(&item.ident, &item.attrs),
            Item::TraitAlias(item) => self.add(&item.ident, &item.attrs),
            Item::Type(item) => self.add(&item.ident, &item.attrs),
            Item::Union(item) => self.add(&item.ident, &item.attrs),
            _ => {}
        }
        let is_conditional = matches!(item, Item::Mod(item) if has_condition(&item.attrs));
        self.conditions += usize::from(is_conditional);
        syn::visit::visit_item(self, item);
        self.conditions -= usize::from(is_conditional);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// The files that define a type of each duplicate name.
    fn duplicates_in(
        files: &[(&str, &str)],
        alternatives: &[(&str, &str)],
    ) -> Vec<(String, Vec<String>)> {
        let root = std::env::temp_dir().join(format!("millpond-types-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(&root).unwrap();
        for (path, text) in files {
            fs::write(root.join(path), text).unwrap();
        }
        let mut definitions = Definitions::new();
        collect(&root, &mut definitions).unwrap();
        fs::remove_dir_all(&root).unwrap();
        let duplicates = duplicates(&definitions, alternatives).into_iter();
        let file = |path: &&Path| path.file_name().unwrap().to_string_lossy().into_owned();
        duplicates
            .map(|(name, paths)| (name.to_owned(), paths.iter().map(file).collect()))
            .collect()
    }

    #[test]
    fn names_of_two_types_are_duplicates_and_alternatives_are_none() {
        let a = ("a.rs", "pub struct A;");
        let both = [("A".into(), vec!["a.rs".into(), "b.rs".into()])];
        for b in [
            "enum A {}",
            "trait A {}",
            "type A = u8;",
            "union A { a: u8 }",
            "mod b { pub struct A; }",
            "fn b() { struct A; }",
            "#[cfg(unix)] struct A;",
        ] {
            assert_eq!(duplicates_in(&[a, ("b.rs", b)], &[]), both, "{b}");
            let listed = [("A", "one of the two is compiled")];
            assert_eq!(duplicates_in(&[a, ("b.rs", b)], &listed), [], "{b}");
        }
        for b in [
            "struct B;",
            "use crate::a::A;",
            "#[cfg(test)] struct A;",
            "#[cfg(test)] mod tests { struct A; }",
            "trait B { type A; } impl B for C { type A = u8; }",
        ] {
            assert_eq!(duplicates_in(&[a, ("b.rs", b)], &[]), [], "{b}");
        }
        let twins = "#[cfg(unix)] struct A; #[cfg(not(unix))] mod b { struct A; }";
        assert_eq!(duplicates_in(&[("a.rs", twins)], &[]), []);
        let one_is_unconditional = "#[cfg(unix)] struct A; mod b { struct A; }";
        assert_eq!(
            duplicates_in(&[("a.rs", one_is_unconditional)], &[]),
            [("A".into(), vec!["a.rs".into(), "a.rs".into()])]
        );
    }
}
