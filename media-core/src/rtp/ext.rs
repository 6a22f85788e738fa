//! RTP header extension elements (RFC 8285), one-byte and two-byte form.

use super::packet::RtpView;

/// Profile value of the one-byte form (RFC 8285 §4.2).
pub const ONE_BYTE_PROFILE: u16 = 0xbede;

/// One extension element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Element<'a> {
    /// Local identifier as negotiated by `a=extmap`, 1–14 or 1–255.
    pub id: u8,
    /// The element's data.
    pub data: &'a [u8],
}

/// Iterates elements; ends at the first malformed one. Each step consumes at least one byte.
#[derive(Debug, Clone)]
pub struct Elements<'a> {
    rest: &'a [u8],
    two_byte: bool,
}

/// Elements of a packet's header extension; empty for none or for an unknown profile.
#[must_use]
pub fn elements<'a>(packet: &RtpView<'a>) -> Elements<'a> {
    match packet.extension() {
        Some((ONE_BYTE_PROFILE, data)) => Elements { rest: data, two_byte: false },
        // 0x100 and four bits that the application may use (RFC 8285 §4.3).
        Some((profile, data)) if profile & 0xfff0 == 0x1000 => {
            Elements { rest: data, two_byte: true }
        }
        _ => Elements { rest: &[], two_byte: false },
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Element<'a>;

    fn next(&mut self) -> Option<Element<'a>> {
        loop {
            let (&first, rest) = self.rest.split_first()?;
            self.rest = rest;
            if first == 0 {
                continue; // padding
            }
            let (id, len) = if self.two_byte {
                let (&len, rest) = self.rest.split_first()?;
                self.rest = rest;
                (first, usize::from(len))
            } else {
                (first >> 4, usize::from(first & 0x0f) + 1)
            };
            // Identifier 15 of the one-byte form ends processing (RFC 8285 §4.2).
            if !self.two_byte && id == 15 {
                self.rest = &[];
                return None;
            }
            let Some((data, rest)) = self.rest.split_at_checked(len) else {
                self.rest = &[];
                return None;
            };
            self.rest = rest;
            return Some(Element { id, data });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn with_extension(profile: u16, data: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x90, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1];
        packet.extend(profile.to_be_bytes());
        let padded = data.len().div_ceil(4);
        packet.extend((padded as u16).to_be_bytes());
        packet.extend(data);
        packet.resize(16 + padded * 4, 0);
        packet
    }

    #[test]
    fn both_forms() {
        let one = with_extension(0xbede, &[0x10, 0xaa, 0x00, 0x21, 0xbb, 0xcc]);
        let two = with_extension(0x1005, &[1, 0, 0, 200, 2, 0xbb, 0xcc]);
        let read = |bytes: &[u8]| -> Vec<(u8, Vec<u8>)> {
            let view = RtpView::parse(bytes).unwrap();
            elements(&view).map(|e| (e.id, e.data.to_vec())).collect()
        };
        assert_eq!(read(&one), [(1, vec![0xaa]), (2, vec![0xbb, 0xcc])]);
        assert_eq!(read(&two), [(1, vec![]), (200, vec![0xbb, 0xcc])]);
        assert_eq!(read(&with_extension(0xbede, &[0xf0, 1, 0x10, 2])), []);
        assert_eq!(read(&with_extension(0xbede, &[0x1f, 1])), []);
        assert_eq!(read(&with_extension(0x4242, &[0x10, 1])), []);
    }

    proptest! {
        #[test]
        fn any_data_ends(profile in prop_oneof![Just(0xbede_u16), Just(0x1000), any::<u16>()],
                         data in prop::collection::vec(any::<u8>(), 0..64)) {
            let bytes = with_extension(profile, &data);
            let view = RtpView::parse(&bytes).unwrap();
            prop_assert!(elements(&view).count() <= data.len());
        }
    }
}
