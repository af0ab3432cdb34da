//! Memory that bytes pass through. Each thread has one set, warm in its caches; a connection holds
//! memory of its own only for bytes that could not be passed on at once, so ten thousand idle
//! flows need no buffer at all.

use std::cell::RefCell;
use std::ops::Range;

use tunnel_proto::frame::{HEADER, LONGEST_OTHER};

use super::records::{LONGEST, sealed_length};

/// How many bytes of a flow go into one frame: what is read at once from the plain side. With its
/// header it fills whole records, and with theirs it goes out in one piece: the kernel hands at most
/// 64 KiB at a time to a device, and a fourth record would leave a small rest for a turn of its own.
/// Measured with 1, 2, 3, 4, 8 and 16 records: three carry a fifth more than four or eight.
pub(super) const CHUNK: usize = 3 * LONGEST - HEADER;

/// How many bytes are read at once from the tunnel side.
pub(super) const CIPHER: usize = sealed_length(HEADER + CHUNK);

/// The longest frame: a datagram may be longer than what is read at once.
const FRAME: usize = HEADER + if CHUNK > LONGEST_OTHER { CHUNK } else { LONGEST_OTHER };

/// Memory for one step of one flow.
#[derive(Debug)]
pub(super) struct Scratch {
    /// A frame: header and payload.
    pub(super) frame: Vec<u8>,
    /// Records.
    pub(super) cipher: Vec<u8>,
    /// Where in [`Self::cipher`] the content of records is, once they have been decrypted.
    pub(super) found: Pieces,
    /// Where bytes of the flow are.
    pub(super) pieces: Pieces,
}

/// Parts of a slice, in order.
pub(super) type Pieces = Vec<Range<usize>>;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch {
        frame: vec![0; FRAME],
        cipher: vec![0; sealed_length(FRAME)],
        found: Vec::new(),
        pieces: Vec::new(),
    });
}

impl Scratch {
    /// Lends this thread's memory. Must not be called from within itself.
    pub(super) fn with<T>(use_it: impl FnOnce(&mut Self) -> T) -> T {
        SCRATCH.with_borrow_mut(use_it)
    }
}
