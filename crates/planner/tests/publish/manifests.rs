//! Whole clusters as manifests, each beside what follows from it.
//!
//! Bless with `UPDATE_EXPECT=1`; read the difference before committing it.

use std::path::Path;

use expect_test::expect_file;
use planner::publish::{plan, statuses};

use crate::world::{all_well, backends, findings, objects, ports, show_patch, view};

#[test]
fn wb_01_a_homelab_behind_one_small_gateway() {
    check("homelab");
}

#[test]
fn wb_06_two_gateways_and_several_teams_that_share_them() {
    check("teams");
}

#[test]
fn hostile_manifests_cost_only_themselves() {
    check("hostile");
}

/// Plans `<case>.yaml` and compares with `<case>.plan`.
#[track_caller]
fn check(case: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/publish/testdata");
    let manifests = read(&folder.join(case).with_extension("yaml"));
    let publication = plan(&view(objects(&manifests)));
    let told = statuses(&publication, &all_well(&publication));
    let told: String = told.iter().map(show_patch).collect();
    let text = [
        "# ports\n",
        &ports(&publication),
        "\n# backends\n",
        &backends(&publication),
        "\n# findings\n",
        &findings(&publication.findings),
        "\n# statuses, while every gateway does what it is asked\n",
        &told,
    ];
    expect_file![folder.join(case).with_extension("plan")].assert_eq(&text.concat());
}

#[expect(clippy::disallowed_methods, reason = "a test reads its own cases")]
fn read(path: &Path) -> String {
    std::fs::read_to_string(path).expect("the case is there")
}
