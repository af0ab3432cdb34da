//! The laws of the fuzz targets, held over their seeds.

use testkit::corpus::hold;

#[path = "../../../../fuzz/targets/epok_rules.rs"]
mod epok_rules;
#[path = "../../../../fuzz/targets/guard.rs"]
mod guard;
#[path = "../../../../fuzz/targets/iptables_listing.rs"]
mod iptables_listing;
#[path = "../../../../fuzz/targets/nft_listing.rs"]
mod nft_listing;

#[test]
fn nft_listings_are_planned_away_or_told() {
    hold("nft_listing", nft_listing::law);
}

#[test]
fn iptables_listings_are_planned_away_or_told() {
    hold("iptables_listing", iptables_listing::law);
}

#[test]
fn rules_of_epok_are_removed_or_told() {
    hold("epok_rules", epok_rules::law);
}

#[test]
fn what_the_guard_permits_stays_ours() {
    hold("guard", guard::law);
}
