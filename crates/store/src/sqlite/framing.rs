//! Several byte strings in one blob: one after the other, each with its length before it.

use crate::StoreError;

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
    fn a_length_beyond_the_page_is_corrupt() {
        assert!(matches!(split(&[5, 1, 2]), Err(StoreError::Corrupt(_))));
        assert!(matches!(split(&[0xff; 12]), Err(StoreError::Corrupt(_))));
    }
}
