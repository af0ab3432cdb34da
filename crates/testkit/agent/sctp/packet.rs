//! SCTP packets (RFC 9260), as far as the probes speak it.

/// A kind of chunk; section 3.2 has the numbers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Data,
    Init,
    InitAck,
    Sack,
    Abort,
    CookieEcho,
    CookieAck,
    Other(u8),
}

impl Kind {
    const NUMBERS: [(Self, u8); 7] = [
        (Self::Data, 0),
        (Self::Init, 1),
        (Self::InitAck, 2),
        (Self::Sack, 3),
        (Self::Abort, 6),
        (Self::CookieEcho, 10),
        (Self::CookieAck, 11),
    ];

    fn from_number(number: u8) -> Self {
        let known = Self::NUMBERS.into_iter().find(|(_, it)| *it == number);
        known.map_or(Self::Other(number), |(kind, _)| kind)
    }

    fn number(self) -> u8 {
        if let Self::Other(number) = self {
            return number;
        }
        Self::NUMBERS.into_iter().find(|(it, _)| *it == self).map_or(255, |(_, number)| number)
    }
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Chunk {
    pub(super) kind: Kind,
    pub(super) flags: u8,
    pub(super) value: Vec<u8>,
}

impl Chunk {
    /// INIT or INIT ACK with one stream each way; the latter has a cookie.
    pub(super) fn init(kind: Kind, tag: u32, cookie: &[u8]) -> Self {
        let mut value = Vec::new();
        value.extend(tag.to_be_bytes());
        value.extend(0x0001_0000_u32.to_be_bytes()); // receive window
        value.extend([0, 1, 0, 1]); // streams out and in
        value.extend(1_u32.to_be_bytes()); // first TSN
        if let Ok(length) = u16::try_from(4 + cookie.len())
            && !cookie.is_empty()
        {
            value.extend([0, 7]); // parameter: state cookie
            value.extend(length.to_be_bytes());
            value.extend(cookie);
        }
        Self { kind, flags: 0, value }
    }

    /// A whole message on stream 0.
    pub(super) fn data(tsn: u32, text: &[u8]) -> Self {
        let mut value = Vec::new();
        value.extend(tsn.to_be_bytes());
        value.extend([0, 0]); // stream
        // Each message is the next in its stream.
        value.extend((tsn.wrapping_sub(1) as u16).to_be_bytes());
        value.extend([0; 4]); // payload protocol
        value.extend(text);
        Self { kind: Kind::Data, flags: 3, value }
    }

    /// An acknowledgement of everything up to `tsn`.
    pub(super) fn sack(tsn: u32) -> Self {
        let mut value = Vec::new();
        value.extend(tsn.to_be_bytes());
        value.extend(0x0001_0000_u32.to_be_bytes());
        value.extend([0; 4]); // no gaps, no duplicates
        Self { kind: Kind::Sack, flags: 0, value }
    }

    /// The tag of an INIT or INIT ACK, or the TSN of DATA.
    pub(super) fn first_number(&self) -> Option<u32> {
        Some(u32::from_be_bytes(self.value.get(..4)?.try_into().ok()?))
    }

    /// What an INIT ACK says: the server's tag and the cookie to bring back.
    pub(super) fn tag_and_cookie(&self) -> Option<(u32, Vec<u8>)> {
        let tag = self.first_number()?;
        let mut rest = self.value.get(16..)?;
        loop {
            let kind = u16::from_be_bytes(rest.get(..2)?.try_into().ok()?);
            let length = usize::from(u16::from_be_bytes(rest.get(2..4)?.try_into().ok()?));
            if kind == 7 {
                return Some((tag, rest.get(4..length)?.to_vec()));
            }
            rest = rest.get(length.max(4).next_multiple_of(4)..)?;
        }
    }

    /// The message of a DATA chunk.
    pub(super) fn text(&self) -> Option<String> {
        Some(String::from_utf8_lossy(self.value.get(12..)?).into_owned())
    }
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Packet {
    pub(super) from: u16,
    pub(super) to: u16,
    pub(super) tag: u32,
    pub(super) chunks: Vec<Chunk>,
}

impl Packet {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(self.from.to_be_bytes());
        bytes.extend(self.to.to_be_bytes());
        bytes.extend(self.tag.to_be_bytes());
        bytes.extend([0; 4]);
        for chunk in &self.chunks {
            let length = u16::try_from(4 + chunk.value.len()).unwrap_or(u16::MAX);
            bytes.extend([chunk.kind.number(), chunk.flags]);
            bytes.extend(length.to_be_bytes());
            bytes.extend(&chunk.value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        let checksum = crc32c(&bytes);
        bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads a packet; `None` if it is cut short or its checksum is wrong, as a real stack
    /// ignores both.
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let number = |range| {
            Some(u16::from_be_bytes(bytes.get::<std::ops::Range<usize>>(range)?.try_into().ok()?))
        };
        let tag = u32::from_be_bytes(bytes.get(4..8)?.try_into().ok()?);
        let checksum = u32::from_le_bytes(bytes.get(8..12)?.try_into().ok()?);
        let mut zeroed = bytes.to_vec();
        zeroed[8..12].fill(0);
        if crc32c(&zeroed) != checksum {
            return None;
        }
        let mut chunks = Vec::new();
        let mut rest = &bytes[12..];
        while !rest.is_empty() {
            let length = usize::from(u16::from_be_bytes(rest.get(2..4)?.try_into().ok()?));
            let value = rest.get(4..length)?.to_vec();
            chunks.push(Chunk { kind: Kind::from_number(rest[0]), flags: rest[1], value });
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Some(Self { from: number(0..2)?, to: number(2..4)?, tag, chunks })
    }
}

/// Reads what a raw socket received: IPv4 sockets deliver the IP header too.
pub(super) fn received(bytes: &[u8], ipv4: bool) -> Option<Packet> {
    let header = if ipv4 { usize::from(bytes.first()? & 0x0f) * 4 } else { 0 };
    Packet::from_bytes(bytes.get(header..)?)
}

/// CRC-32C (RFC 9260 appendix A).
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}
