//! The frames of a WebSocket, followed as they pass (RFC 6455 section 5.2).

/// Length of the longest head of a frame.
const HEAD: usize = 14;
/// The frame after which its sender sends no more.
const CLOSE: u8 = 8;

/// Where in its frames a stream stands.
#[derive(Clone, Debug, Default)]
pub(super) struct Frames {
    /// The head of the current frame, and how much of it has passed.
    head: [u8; HEAD],
    passed: usize,
    /// How much of the payload is to come.
    left: u64,
    closed: bool,
}

impl Frames {
    /// These octets passed.
    pub(super) fn follow(&mut self, mut octets: &[u8]) {
        while let Some((first, rest)) = octets.split_first() {
            if self.left > 0 {
                let payload = usize::try_from(self.left).unwrap_or(usize::MAX).min(octets.len());
                self.left -= u64::try_from(payload).unwrap_or(u64::MAX);
                octets = octets.get(payload..).unwrap_or_default();
                continue;
            }
            if let Some(place) = self.head.get_mut(self.passed) {
                *place = *first;
            }
            self.passed += 1;
            octets = rest;
            let [kind, length, ..] = self.head;
            if self.passed >= 2 && self.passed == head_length(length) {
                self.left = payload_length(&self.head);
                self.closed |= kind & 0x0f == CLOSE;
                self.passed = 0;
            }
        }
    }

    /// Whether one frame has passed whole and the next has not begun.
    pub(super) fn is_between(&self) -> bool {
        self.passed == 0 && self.left == 0
    }

    /// How much of the payload of the current frame is to come, as far as its head has passed.
    pub(super) fn left(&self) -> u64 {
        self.left
    }

    /// Whether the sender has closed.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// How many of these octets end the current frame, or all if none does.
    pub(super) fn up_to_end(&self, octets: &[u8]) -> usize {
        let mut frames = self.clone();
        let ends = octets.iter().position(|octet| {
            frames.follow(std::slice::from_ref(octet));
            frames.is_between()
        });
        ends.map_or(octets.len(), |place| place + 1)
    }
}

fn head_length(second: u8) -> usize {
    let mask = if second & 0x80 == 0 { 0 } else { 4 };
    2 + mask + extended(second)
}

/// Number of octets that say a length of more than 125.
fn extended(second: u8) -> usize {
    match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    }
}

fn payload_length(head: &[u8; HEAD]) -> u64 {
    let [_, second, a, b, c, d, e, f, g, h, ..] = *head;
    match extended(second) {
        0 => u64::from(second & 0x7f),
        2 => u64::from(u16::from_be_bytes([a, b])),
        _ => u64::from_be_bytes([a, b, c, d, e, f, g, h]),
    }
}

/// A server's frame that closes with this code.
pub(super) fn close(code: u16) -> [u8; 4] {
    let [high, low] = code.to_be_bytes();
    [0x80 | CLOSE, 2, high, low]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(second: &[u8], payload: usize) -> Vec<u8> {
        [&[0x82], second, &vec![7; payload][..]].concat()
    }

    #[test]
    fn the_end_of_each_frame_is_found_however_it_is_cut() {
        let mask = [1, 2, 3, 4];
        let frames = [
            frame(&[0], 0),
            frame(&[5], 5),
            frame(&[125], 125),
            frame(&[126, 1, 0], 256),
            frame(&[127, 0, 0, 0, 0, 0, 1, 0, 1], 65_537),
            frame(&[&[0x80 | 3][..], &mask].concat(), 3),
            frame(&[&[0xfe, 0, 200][..], &mask].concat(), 200),
        ];
        for step in [1, 2, 3, 7, 1000, usize::MAX] {
            let mut follower = Frames::default();
            for frame in &frames {
                let (last, before) = frame.split_last().unwrap();
                before.chunks(step.min(before.len())).for_each(|piece| follower.follow(piece));
                assert!(!follower.is_between(), "{step}");
                assert_eq!(follower.up_to_end(&[*last, 0x82, 0]), 1);
                follower.follow(&[*last]);
                assert!(follower.is_between() && !follower.is_closed(), "{step}");
            }
        }
        let mut whole = Frames::default();
        whole.follow(&frames.concat());
        assert!(whole.is_between());
        assert_eq!(whole.up_to_end(&frames.concat()), 2);
    }

    #[test]
    fn a_sender_that_closed_is_known() {
        let mut frames = Frames::default();
        frames.follow(&close(1001));
        assert!(frames.is_closed() && frames.is_between());
    }
}
