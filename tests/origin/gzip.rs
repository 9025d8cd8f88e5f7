//! Content in the coding `gzip` (RFC 1952), without compression.

/// Maximum length of a stored block (RFC 1951 section 3.2.4).
const BLOCK: usize = 0xffff;

/// Returns the bytes in the coding `gzip`.
pub(crate) fn gzip(content: &[u8]) -> Vec<u8> {
    let mut coded = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
    for block in content.chunks(BLOCK) {
        let length = u16::try_from(block.len()).unwrap();
        coded.push(0);
        coded.extend(length.to_le_bytes());
        coded.extend((!length).to_le_bytes());
        coded.extend(block);
    }
    // The last block, of no bytes.
    coded.extend([1, 0, 0, 0xff, 0xff]);
    coded.extend(crc32(content).to_le_bytes());
    let length = u32::try_from(content.len()).unwrap();
    coded.extend(length.to_le_bytes());
    coded
}

fn crc32(content: &[u8]) -> u32 {
    let divide = |crc: u32, _| match crc & 1 {
        1 => (crc >> 1) ^ 0xedb8_8320,
        _ => crc >> 1,
    };
    !content.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), divide)
    })
}

#[test]
fn the_checksum_is_that_of_gzip() {
    // The check value of CRC-32/ISO-HDLC.
    assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
}
