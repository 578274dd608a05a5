//! The bytes of one segment: eight that name the format, then frames, each with a checksum.
//!
//! A frame is `length u32 | checksum u32 | sequence u64 | kind u8 | payload`, little-endian; `length` counts
//! what follows the checksum, which is the CRC-32 of everything in the frame but itself. Sequences grow from
//! frame to frame, so that reading finds its way again behind bytes that were damaged. Pure: bytes in,
//! frames out; never panics, whatever the bytes are.

use std::ops::Range;

/// How a segment begins: the name of the format, and its version.
pub(super) const MAGIC: &[u8; 8] = b"TGJRNL01";

/// Longest payload, in bytes; requests are far smaller (`max_message_size`).
pub(super) const MAX_PAYLOAD: usize = 1 << 20;

/// Bytes of a frame before its payload.
const HEAD: usize = 17;

/// Bytes of a frame that `length` counts besides the payload.
const COUNTED: usize = 9;

/// What a frame is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Something that the ledger has done.
    Done,
    /// Something that it has to do.
    Todo,
    /// What became of the latter.
    Outcome,
}

impl Kind {
    const ALL: [Kind; 3] = [Kind::Done, Kind::Todo, Kind::Outcome];

    fn code(self) -> u8 {
        match self {
            Kind::Done => 1,
            Kind::Todo => 2,
            Kind::Outcome => 3,
        }
    }

    fn of(code: u8) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.code() == code)
    }
}

/// A frame that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) sequence: u64,
    pub(super) kind: Kind,
    pub(super) payload: &'a [u8],
}

/// What a segment holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Scan<'a> {
    /// Every good frame, in order.
    pub(super) frames: Vec<Frame<'a>>,
    /// What lies between good frames, or before the first, and cannot be read.
    pub(super) damaged: Vec<Range<usize>>,
    /// Where the last good frame ends; bytes behind it are a frame that was being written.
    pub(super) end: usize,
}

/// How many bytes a frame of so long a payload has.
pub(super) fn frame_length(payload: usize) -> usize {
    HEAD + payload
}

/// Appends a frame; `false`, and nothing, where the payload is too long.
pub(super) fn put_frame(into: &mut Vec<u8>, sequence: u64, kind: Kind, payload: &[u8]) -> bool {
    let length = match u32::try_from(payload.len() + COUNTED) {
        Ok(length) if payload.len() <= MAX_PAYLOAD => length.to_le_bytes(),
        _ => return false,
    };
    let mut about = [0; COUNTED];
    about[..8].copy_from_slice(&sequence.to_le_bytes());
    about[8] = kind.code();
    into.extend_from_slice(&length);
    into.extend_from_slice(&checksum(&length, &about, payload).to_le_bytes());
    into.extend_from_slice(&about);
    into.extend_from_slice(payload);
    true
}

/// Reads a segment; frames count from the sequence after `last` on.
pub(super) fn scan(bytes: &[u8], mut last: u64) -> Scan<'_> {
    let mut scan = Scan::default();
    let mut at = if bytes.starts_with(MAGIC) { MAGIC.len() } else { 0 };
    scan.end = at;
    let mut bad_from = None;
    while at < bytes.len() {
        let Some((frame, length)) = frame_at(&bytes[at..], last) else {
            bad_from.get_or_insert(at);
            at += 1;
            continue;
        };
        if let Some(from) = bad_from.take() {
            scan.damaged.push(from..at);
        }
        last = frame.sequence;
        at += length;
        scan.end = at;
        scan.frames.push(frame);
    }
    scan
}

/// The frame at the beginning of the bytes, if a good one of a later sequence is there; and its length.
fn frame_at(bytes: &[u8], last: u64) -> Option<(Frame<'_>, usize)> {
    let (head, rest) = bytes.split_first_chunk::<HEAD>()?;
    let (length, sum) = (head.first_chunk::<4>()?, head[4..].first_chunk::<4>()?);
    let about = head.last_chunk::<COUNTED>()?;
    let counted = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let payload = counted.checked_sub(COUNTED).filter(|payload| *payload <= MAX_PAYLOAD)?;
    let sequence = u64::from_le_bytes(*about.first_chunk::<8>()?);
    let kind = Kind::of(about[8])?;
    if sequence <= last {
        return None;
    }
    let payload = rest.get(..payload)?;
    let frame = Frame { sequence, kind, payload };
    (checksum(length, about, payload) == u32::from_le_bytes(*sum))
        .then(|| (frame, frame_length(payload.len())))
}

fn checksum(length: &[u8], about: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for part in [length, about, payload] {
        hasher.update(part);
    }
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAYLOADS: [&[u8]; 4] = [b"one", b"", b"three is the longest", b"four"];

    fn segment() -> (Vec<u8>, Vec<usize>) {
        let mut bytes = MAGIC.to_vec();
        let mut ends = vec![bytes.len()];
        for (sequence, payload) in (1..).zip(PAYLOADS) {
            let kind = Kind::ALL[usize::try_from(sequence).unwrap_or_default() % 3];
            assert!(put_frame(&mut bytes, sequence, kind, payload));
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    fn payloads<'a>(scan: &Scan<'a>) -> Vec<&'a [u8]> {
        scan.frames.iter().map(|frame| frame.payload).collect()
    }

    #[test]
    fn frames_come_back_as_they_went() {
        let (bytes, ends) = segment();
        let scan = scan(&bytes, 0);
        assert_eq!(payloads(&scan), PAYLOADS);
        assert_eq!(
            scan.frames.iter().map(|frame| frame.sequence).collect::<Vec<_>>(),
            [1, 2, 3, 4]
        );
        assert_eq!(scan.end, *ends.last().expect("an end"));
        assert!(scan.damaged.is_empty());
    }

    #[test]
    fn a_segment_that_was_torn_at_any_offset_keeps_every_whole_frame() {
        let (bytes, ends) = segment();
        for cut in 0..bytes.len() {
            let scan = scan(&bytes[..cut], 0);
            let whole = ends.iter().filter(|end| **end <= cut).count().saturating_sub(1);
            assert_eq!(payloads(&scan), PAYLOADS[..whole], "torn at {cut}");
            assert!(scan.damaged.is_empty(), "torn at {cut}");
            let expected = if cut < MAGIC.len() { 0 } else { ends[whole] };
            assert_eq!(scan.end, expected, "torn at {cut}");
        }
    }

    #[test]
    fn a_byte_that_was_flipped_at_any_offset_costs_its_own_frame_alone() {
        let (bytes, ends) = segment();
        for at in 0..bytes.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut bytes = bytes.clone();
                bytes[at] ^= flip;
                let scan = scan(&bytes, 0);
                let hit = ends.iter().filter(|end| **end <= at).count().checked_sub(1);
                let kept: Vec<&[u8]> = PAYLOADS
                    .iter()
                    .enumerate()
                    .filter(|(number, _)| Some(*number) != hit)
                    .map(|(_, payload)| *payload)
                    .collect();
                assert_eq!(payloads(&scan), kept, "{flip:#x} at {at}");
                // A damaged last frame looks like one that was being written.
                let told = scan.damaged.len() == 1 || scan.end < bytes.len();
                assert!(told, "{flip:#x} at {at}: {scan:?}");
            }
        }
    }

    #[test]
    fn any_bytes_are_read_without_panic() {
        let mut random = fastrand::Rng::with_seed(5);
        for _ in 0..2_000 {
            let mut bytes = MAGIC.to_vec();
            for sequence in 1..4 {
                match random.bool() {
                    true => {
                        put_frame(&mut bytes, sequence, Kind::Todo, &[random.u8(..); 9]);
                    }
                    false => bytes.extend((0..random.usize(..60)).map(|_| random.u8(..4))),
                }
            }
            let scan = scan(&bytes, 0);
            assert!(scan.end <= bytes.len());
        }
    }

    #[test]
    fn a_payload_that_is_too_long_is_refused() {
        let mut bytes = vec![];
        assert!(!put_frame(&mut bytes, 1, Kind::Done, &vec![0; MAX_PAYLOAD + 1]));
        assert_eq!(bytes, b"");
    }
}
