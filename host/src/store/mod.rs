//! A folder of media: files by their names, and files by their content (`media-store` of the interface).
//!
//! Content-addressed media lies at `<root>/<ab>/<id>`, where `id` is the lower-case hexadecimal SHA-256 of
//! the bytes and `ab` its first two digits; a record in JSON lies beside it at `<root>/<ab>/<id>.json`.

mod add;
mod check;
mod digests;
mod folder;
mod slice;

pub use add::{AddError, Added, Adder};
pub use check::{Damage, Finding, check};
pub use folder::{Folder, Key, MediaObject, ObjectInfo, ObjectVariant, OpenError};
pub use millpond_store::content::{Access, ContentId, NotAContentId, Record, VARIANTS, Variant};
pub use slice::{FileSlice, OutOfBounds};

pub(crate) use slice::ReadNow;
