//! The changes that turn observed chains into the desired ones, and the transactions.

use super::tables::Families;

/// What has to be done in both families.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct FamiliesPlan {
    pub(crate) steps: Vec<String>,
    pub(crate) after: Families,
}
