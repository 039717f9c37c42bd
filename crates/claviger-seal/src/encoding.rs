//! The encoding inside everything sealed: fields in order, each text with its length in front.

use zeroize::Zeroizing;

use crate::envelope::OpenError;

/// Blobs in the store are padded to a multiple of this, which hides the length of their contents.
const BLOCK_BYTES: usize = 64;
/// Maximum bytes of a length, at seven bits each.
const LENGTH_BYTES: usize = 10;

/// Writes fields into memory that is wiped on drop. With the right capacity the memory never moves.
pub(crate) struct Writer(Zeroizing<Vec<u8>>);

impl Writer {
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self(Zeroizing::new(Vec::with_capacity(bytes)))
    }

    /// Reserves room for fields of these lengths and the padding.
    pub(crate) fn with_room_for(lengths: impl Iterator<Item = usize>) -> Self {
        let bytes: usize = lengths.map(|length| length + LENGTH_BYTES).sum();
        Self::with_capacity(bytes + BLOCK_BYTES)
    }

    /// Appends bytes whose number the reader knows.
    pub(crate) fn fixed(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Appends a number in LEB128: seven bits a byte, as few bytes as possible.
    pub(crate) fn number(&mut self, mut number: usize) -> &mut Self {
        while number >= 0x80 {
            self.0.push((number & 0x7f) as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
        self
    }

    /// Appends a text after its length.
    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        self.number(text.len()).fixed(text.as_bytes())
    }

    /// Appends zeros up to the next whole block.
    pub(crate) fn pad(&mut self) -> &mut Self {
        let whole = self.0.len().next_multiple_of(BLOCK_BYTES);
        self.0.resize(whole, 0);
        self
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Reads fields in the order in which they were written.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn fixed<const N: usize>(&mut self) -> Result<[u8; N], OpenError> {
        let (field, rest) = self.0.split_first_chunk::<N>().ok_or(OpenError::Invalid)?;
        self.0 = rest;
        Ok(*field)
    }

    pub(crate) fn number(&mut self) -> Result<usize, OpenError> {
        let mut number = 0;
        for shift in (0..usize::BITS - 7).step_by(7) {
            let [octet] = self.fixed()?;
            number |= usize::from(octet & 0x7f) << shift;
            if octet < 0x80 {
                return Ok(number);
            }
        }
        Err(OpenError::Invalid)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, OpenError> {
        let length = self.number()?;
        let (field, rest) = self.0.split_at_checked(length).ok_or(OpenError::Invalid)?;
        self.0 = rest;
        std::str::from_utf8(field).map_err(|_| OpenError::Invalid)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Checks that nothing follows.
    pub(crate) fn end(self) -> Result<(), OpenError> {
        if self.0.is_empty() { Ok(()) } else { Err(OpenError::Invalid) }
    }

    /// Checks that only padding follows.
    pub(crate) fn end_of_padded(self) -> Result<(), OpenError> {
        let padding = self.0.len() < BLOCK_BYTES && self.0.iter().all(|octet| *octet == 0);
        if padding { Ok(()) } else { Err(OpenError::Invalid) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn fields_are_read_as_written(first in any::<[u8; 5]>(), number in 0..usize::MAX >> 8, text in ".{0,300}") {
            let mut writer = Writer::with_room_for([first.len(), text.len(), 0].into_iter());
            let place = writer.bytes().as_ptr();
            writer.fixed(&first).number(number).text(&text).pad();
            prop_assert_eq!(writer.bytes().len() % BLOCK_BYTES, 0);
            prop_assert_eq!(writer.bytes().as_ptr(), place, "the memory moved");
            let mut reader = Reader::new(writer.bytes());
            prop_assert_eq!(reader.fixed(), Ok(first));
            prop_assert_eq!(reader.number(), Ok(number));
            prop_assert_eq!(reader.text(), Ok(text.as_str()));
            prop_assert_eq!(reader.end_of_padded(), Ok(()));
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut reader = Reader::new(&bytes);
            while reader.text().is_ok() {
                if reader.0.is_empty() { break }
            }
            let mut reader = Reader::new(&bytes);
            let _ = reader.number();
            let _ = reader.fixed::<16>();
            let _ = reader.end();
        }
    }

    #[test]
    fn bytes_after_the_last_field_are_refused() {
        assert_eq!(Reader::new(&[]).end(), Ok(()));
        assert_eq!(Reader::new(&[0]).end(), Err(OpenError::Invalid));
        assert_eq!(Reader::new(&[0; 63]).end_of_padded(), Ok(()));
        assert_eq!(Reader::new(&[0; 64]).end_of_padded(), Err(OpenError::Invalid));
        assert_eq!(Reader::new(&[0, 1]).end_of_padded(), Err(OpenError::Invalid));
        assert_eq!(Reader::new(&[0xff; 32]).number(), Err(OpenError::Invalid));
    }
}
