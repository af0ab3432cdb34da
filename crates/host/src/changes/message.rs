//! Finds in netlink packets who completed a transaction of nftables. Reads nothing else.

use super::ChangedBy;

/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWGEN`: the last message of every transaction.
const NEW_GENERATION: u16 = 10 << 8 | 15;
/// `NFTA_GEN_PROC_PID` and `NFTA_GEN_PROC_NAME` of `linux/netfilter/nf_tables.h`.
const PROCESS_ID: u16 = 2;
const PROCESS_NAME: u16 = 3;

/// `struct nlmsghdr` and, after it, `struct nfgenmsg`.
const HEADER: usize = 16;
const FAMILY_HEADER: usize = 4;

/// The makers of the transactions that end in this packet. What is cut off is left out.
pub(super) fn generations(mut packet: &[u8]) -> Vec<ChangedBy> {
    let mut found = Vec::new();
    while let Some((length, kind)) = header(packet) {
        let Some(message) = packet.get(..length) else { break };
        if kind == NEW_GENERATION {
            found.push(maker(message.get(HEADER + FAMILY_HEADER..).unwrap_or_default()));
        }
        packet = packet.get(align(length)..).unwrap_or_default();
    }
    found
}

/// Length and kind of the message that begins here.
fn header(packet: &[u8]) -> Option<(usize, u16)> {
    let length = u32::from_ne_bytes(packet.get(..4)?.try_into().ok()?) as usize;
    let kind = u16::from_ne_bytes(packet.get(4..6)?.try_into().ok()?);
    (length >= HEADER).then_some((length, kind))
}

fn maker(mut attributes: &[u8]) -> ChangedBy {
    let (mut pid, mut name) = (None, String::new());
    while let Some((kind, value, rest)) = attribute(attributes) {
        match kind {
            PROCESS_ID => pid = value.try_into().ok().map(u32::from_be_bytes),
            PROCESS_NAME => {
                let text = value.split(|it| *it == 0).next().unwrap_or_default();
                name = String::from_utf8_lossy(text).into_owned();
            }
            _ => {}
        }
        attributes = rest;
    }
    match pid {
        Some(pid) => ChangedBy::Process { pid, name },
        None => ChangedBy::Unknown,
    }
}

/// Kind and value of the attribute that begins here, and what follows it.
fn attribute(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
    let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?);
    let value = bytes.get(4..length)?;
    Some((kind, value, bytes.get(align(length)..).unwrap_or_default()))
}

fn align(length: usize) -> usize {
    length.saturating_add(3) & !3
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `NEWGEN` as kernel 6.18 sent it for `nft`, generation 5.
    const RECORDED: [u8; 48] = [
        48, 0, 0, 0, 15, 10, 0, 0, 1, 0, 0, 0, 0x51, 0x03, 0, 0, 0, 0, 0, 5, 8, 0, 1, 0, 0, 0, 0,
        5, 8, 0, 3, 0, b'n', b'f', b't', 0, 8, 0, 2, 0, 0, 0, 3, 0x51, 0, 0, 0, 0,
    ];

    fn nft() -> ChangedBy {
        ChangedBy::Process { pid: 0x351, name: "nft".to_owned() }
    }

    #[test]
    fn the_maker_of_a_transaction_is_found() {
        assert_eq!(generations(&RECORDED), [nft()]);
    }

    #[test]
    fn other_messages_are_passed_over() {
        let mut other = RECORDED;
        other[4] = 12;
        let packet = [other, RECORDED, other, RECORDED].concat();
        assert_eq!(generations(&packet), [nft(), nft()]);
    }

    #[test]
    fn whatever_comes_is_survived() {
        for end in 0..RECORDED.len() {
            assert!(generations(&RECORDED[..end]).is_empty());
        }
        for at in 0..RECORDED.len() {
            for value in [0, 1, 3, 4, 17, 0x7f, 0xff] {
                let mut broken = RECORDED;
                broken[at] = value;
                assert!(generations(&broken).len() <= 1);
            }
        }
    }
}
