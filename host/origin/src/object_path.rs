//! Paths of objects at their origin.

use millpond::store::{ContentId, ObjectKey};

/// Returns the path of an object below the origin's URL.
pub(crate) fn object_path(key: &ObjectKey) -> String {
    match key {
        ObjectKey::Named(name) => name.clone(),
        ObjectKey::Content(id) => content_path(id),
    }
}

/// Returns the path of the record of media by content.
pub(crate) fn record_path(id: &ContentId) -> String {
    format!("{}.json", content_path(id))
}

fn content_path(id: &ContentId) -> String {
    let id = id.to_string();
    format!("{}/{id}", &id[..2])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::path::Path;

    #[test]
    fn content_has_the_paths_of_a_folder() {
        let id: ContentId = "ab".repeat(32).parse().unwrap();
        assert_eq!(Path::new(&object_path(&ObjectKey::Content(id))), id.path());
        assert_eq!(Path::new(&record_path(&id)), id.record_path());
    }
}
