//! Content of the origin's objects: a function of the offset, so that an object takes no memory and no byte is right at
//! another place.

/// Bytes of a block. Each block has another content.
const BLOCK: u64 = 8;

/// An object of the origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Object {
    pub(crate) name: &'static str,
    pub(crate) bytes: u64,
}

impl Object {
    /// The object that the herd requests.
    pub(crate) const FIFTY_MEGABYTES: Object = Object {
        name: "50m.mp4",
        bytes: 50_000_000,
    };
    pub(crate) const HALF_MEGABYTE: Object = Object {
        name: "500k.jpg",
        bytes: 500_000,
    };
    pub(crate) const FOUR_KILOBYTES: Object = Object {
        name: "4k.jpg",
        bytes: 4096,
    };
    /// The object in whose middle a range is requested.
    pub(crate) const TEN_GIGABYTES: Object = Object {
        name: "10g.mp4",
        bytes: 10_000_000_000,
    };
    pub(crate) const ALL: [Object; 4] = [
        Object::FIFTY_MEGABYTES,
        Object::HALF_MEGABYTE,
        Object::FOUR_KILOBYTES,
        Object::TEN_GIGABYTES,
    ];

    /// Path of the object at the origin and at each server.
    pub(crate) fn target(self) -> String {
        format!("/media/{}", self.name)
    }

    /// Returns the object at a path.
    pub(crate) fn at(target: &str) -> Option<Object> {
        let name = target.strip_prefix("/media/")?;
        Object::ALL.into_iter().find(|object| object.name == name)
    }

    pub(crate) fn media_type(self) -> &'static str {
        match self.name.ends_with(".mp4") {
            true => "video/mp4",
            false => "image/jpeg",
        }
    }

    /// Fills a buffer with the bytes from an offset on.
    pub(crate) fn fill(self, offset: u64, buffer: &mut [u8]) {
        let mut rest = buffer;
        let mut index = offset / BLOCK;
        // A remainder is less than the length of a block.
        let mut skipped = (offset % BLOCK) as usize;
        while !rest.is_empty() {
            let block = hash(self.bytes ^ index.rotate_left(20)).to_le_bytes();
            let part = &block[skipped..];
            let count = part.len().min(rest.len());
            let (filled, unfilled) = rest.split_at_mut(count);
            filled.copy_from_slice(&part[..count]);
            rest = unfilled;
            (index, skipped) = (index + 1, 0);
        }
    }

    /// Returns the bytes from an offset on.
    pub(crate) fn read(self, offset: u64, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.fill(offset, &mut bytes);
        bytes
    }
}

/// The finalizer of SplitMix64, which differs for each argument.
fn hash(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_the_same_from_every_offset() {
        let whole = Object::FOUR_KILOBYTES.read(0, 4096);
        for offset in [0, 1, 7, 8, 9, 4000] {
            for count in [0, 1, 8, 17, 96] {
                let part = Object::FOUR_KILOBYTES.read(offset as u64, count);
                assert_eq!(part, whole[offset..offset + count]);
            }
        }
    }

    #[test]
    fn objects_and_places_differ() {
        let first = Object::FOUR_KILOBYTES.read(0, 64);
        assert_ne!(first, Object::FOUR_KILOBYTES.read(64, 64));
        assert_ne!(first, Object::HALF_MEGABYTE.read(0, 64));
    }

    #[test]
    fn an_object_is_found_at_its_path() {
        for object in Object::ALL {
            assert_eq!(Object::at(&object.target()), Some(object));
        }
        assert_eq!(Object::at("/media/none"), None);
    }
}
