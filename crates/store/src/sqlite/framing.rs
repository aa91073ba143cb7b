//! Several byte strings in one blob: one after the other, each with its length before it.

use std::borrow::Cow;

use crate::StoreError;

/// The first byte of a blob that is compressed. No item of such a blob is empty.
const COMPRESSED: u8 = 0;

/// No blob is longer once it is unpacked.
const MAX_UNPACKED: usize = 1 << 28;

/// Compresses what [`push`] made, of items that are not empty, where that makes it shorter: an LZ4 block
/// after a mark and the length (32 bits, little-endian).
pub(super) fn pack(bytes: &[u8]) -> Cow<'_, [u8]> {
    let mut packed = vec![0; 5 + lz4_flex::block::get_maximum_output_size(bytes.len())];
    packed[0] = COMPRESSED;
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    packed[1..5].copy_from_slice(&length.to_le_bytes());
    match lz4_flex::block::compress_into(bytes, &mut packed[5..]) {
        Ok(block) if block + 5 < bytes.len() && bytes.len() <= MAX_UNPACKED => {
            packed.truncate(block + 5);
            packed.into()
        }
        _ => bytes.into(),
    }
}

/// What [`pack`] was given.
pub(super) fn unpack(bytes: &[u8]) -> Result<Cow<'_, [u8]>, StoreError> {
    let [COMPRESSED, a, b, c, d, block @ ..] = bytes else {
        return Ok(bytes.into());
    };
    let length = u32::from_le_bytes([*a, *b, *c, *d]) as usize;
    let damaged = || StoreError::Corrupt("a compressed page of the store is damaged".into());
    if length > MAX_UNPACKED {
        return Err(damaged());
    }
    match lz4_flex::block::decompress(block, length) {
        Ok(unpacked) if unpacked.len() == length => Ok(unpacked.into()),
        _ => Err(damaged()),
    }
}

/// Appends an item with its length (base 128, least significant group first) before it.
pub(super) fn push(bytes: &mut Vec<u8>, item: &[u8]) {
    let mut length = item.len();
    while length >= 0x80 {
        bytes.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes.extend_from_slice(item);
}

/// Takes apart what [`push`] made.
pub(super) fn split(mut bytes: &[u8]) -> Result<Vec<&[u8]>, StoreError> {
    let mut items = Vec::new();
    while !bytes.is_empty() {
        let (item, rest) = split_first(bytes)
            .ok_or_else(|| StoreError::Corrupt("a page of the store is damaged".into()))?;
        items.push(item);
        bytes = rest;
    }
    Ok(items)
}

fn split_first(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut length = 0_usize;
    for (index, byte) in bytes.iter().enumerate().take(5) {
        length |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return bytes[index + 1..].split_at_checked(length);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn items_survive_the_page(items in prop::collection::vec(
            prop::collection::vec(any::<u8>(), 0..300), 0..20)) {
            let mut bytes = Vec::new();
            for item in &items {
                push(&mut bytes, item);
            }
            let split = split(&bytes).map_err(|e| TestCaseError::fail(e.to_string()))?;
            prop_assert_eq!(split, items.iter().map(Vec::as_slice).collect::<Vec<_>>());
        }

        #[test]
        fn damaged_pages_are_refused_not_followed(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(items) = split(&bytes) {
                prop_assert!(items.iter().map(|item| item.len()).sum::<usize>() <= bytes.len());
            }
        }
    }

    #[test]
    fn what_repeats_is_packed_shorter_and_unpacked_again() {
        let mut bytes = Vec::new();
        for item in 0..100 {
            push(
                &mut bytes,
                format!("{{\"what\":\"the same but for {item}\"}}").as_bytes(),
            );
        }
        let packed = pack(&bytes);
        assert!(packed.len() * 2 < bytes.len(), "{} bytes", packed.len());
        assert_eq!(unpack(&packed), Ok(bytes.as_slice().into()));
        let plain = pack(b"\x02hi");
        assert_eq!(*plain, *b"\x02hi");
        assert_eq!(unpack(&plain), Ok(plain.clone()));
        for damaged in [
            &packed[..packed.len() - 1],
            &[0, 255, 255, 255, 255, 1],
            &[0, 9, 0, 0, 0],
        ] {
            assert!(matches!(unpack(damaged), Err(StoreError::Corrupt(_))));
        }
    }

    #[test]
    fn a_length_beyond_the_page_is_corrupt() {
        assert!(matches!(split(&[5, 1, 2]), Err(StoreError::Corrupt(_))));
        assert!(matches!(split(&[0xff; 12]), Err(StoreError::Corrupt(_))));
    }
}
