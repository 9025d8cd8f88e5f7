//! Where media lies (`media-store` of the interface): a [`Folder`], or whatever else is a [`MediaStore`].
//!
//! In a folder, files are had by their names and by their content. Content-addressed media lies at `<root>/<ab>/<id>`,
//! where `id` is the lower-case hexadecimal SHA-256 of the bytes and `ab` its first two digits; a record in JSON lies
//! beside it at `<root>/<ab>/<id>.json`.

mod add;
mod check;
mod digests;
mod folder;
mod incoming;
mod keeper;
mod kept;
mod markup;
#[cfg(target_os = "linux")]
mod mounts;
mod object;
mod pieces;
mod record;
mod root;
mod slice;
mod thread_pool;
mod unreadable;
mod version;

pub use add::{Abandoned, AddError, Added, Adder, Published};
pub use check::{Damage, Finding, check};
pub use folder::{Folder, RECHECK};
pub use millpond_format::{Access, ContentId, MAX_VARIANTS, ParseContentIdError, Record, Variant};
pub use object::{
    KeptBytes, Key, MediaObject, MediaStore, ObjectInfo, ObjectVariant, ObjectVersion, OpenError,
};
pub use pieces::ReadAt;

pub(crate) use kept::KEPT_FILES_PART;
pub(crate) use object::{AnyStore, MediaStream, off_the_guests_stack, open};
pub(crate) use pieces::Reading;
#[cfg(test)]
pub(crate) use slice::MediaFile;
pub(crate) use slice::{
    FileSlice, OpenFile, ReadNow, SMALL_BYTES, has_shrunk, read_at, read_now_at,
};
pub(crate) use thread_pool::Blocking;
