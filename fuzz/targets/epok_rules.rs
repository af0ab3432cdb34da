//! What a host that Epok used could print for `iptables-save -t nat`.
#![cfg_attr(fuzzing, no_main)]

use firewall::{epok, guard};

/// What is taken for a rule of Epok's stands in the listing as it is, bears its mark, and goes by
/// a command that the host itself would permit; whatever else bears the mark is reported.
pub(crate) fn law(input: &[u8]) {
    let Ok(listing) = std::str::from_utf8(input) else { return };
    let left = epok::find(listing);
    for rule in &left.rules {
        let line = format!("-A {} {}", rule.chain, rule.text);
        assert!(listing.lines().any(|it| it.ends_with(&line)), "{line}");
        assert!(rule.text.contains("epok_rule_id"), "{line}");
        assert!(["PREROUTING", "OUTPUT"].contains(&rule.chain.as_str()), "{line}");
    }
    let marked = |it: &&str| it.contains("epok_rule_id") && !it.starts_with('#');
    let found = left.rules.len() + left.unclear.len();
    assert!(found >= listing.lines().filter(marked).count(), "a marked line is told of");
    assert_eq!(left.counts().values().sum::<usize>(), left.rules.len());
    assert_eq!(left.removal().is_none(), left.rules.is_empty());
    if let Some(removal) = left.removal() {
        assert_eq!(removal.stdin.lines().count(), left.rules.len() + 2);
        assert_eq!(guard::check(&removal), Ok(()), "{}", removal.stdin);
    }
}

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|input: &[u8]| law(input));
