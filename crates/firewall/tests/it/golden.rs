//! The rulesets of the test data, as files that can be read, loaded and compared.

use std::collections::BTreeSet;

use expect_test::expect_file;
use firewall::{Observed, guard};

use crate::cases;
use crate::laws::BACKENDS;

/// Every ruleset is what it was. `UPDATE_EXPECT=1` writes the files anew; the review is the diff.
#[test]
fn rulesets_are_as_written() {
    for (name, folder, forwarding) in cases::all() {
        let mut files: BTreeSet<_> = ["forwarding.txt", "packets.txt"].map(str::to_owned).into();
        for backend in BACKENDS {
            let ruleset = backend.render(&forwarding);
            let plan = backend.plan(&ruleset, &Observed::default(), &BTreeSet::new());
            let short = format!("{backend:?}").to_lowercase();
            for command in plan.commands() {
                assert_eq!(guard::check(&command), Ok(()), "{name}");
                let file = format!("{short}.{}", command.program.name());
                expect_file![folder.join(&file)].assert_eq(&command.stdin);
                files.insert(file);
            }
            let file = format!("{short}.plan.txt");
            expect_file![folder.join(&file)].assert_eq(&plan.to_string());
            files.insert(file);
        }
        let found: BTreeSet<_> = std::fs::read_dir(&folder)
            .expect("the folder is there")
            .map(|it| it.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        assert_eq!(found, files, "{name}: every file is used");
    }
}
