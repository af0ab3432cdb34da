//! Through which interfaces of a host a forward should be reachable.

/// Through which interfaces of a host a forward should be reachable.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum Exposure {
    /// Through every interface.
    #[default]
    Everywhere,
    /// Not through the external interface.
    Internal,
    /// Only through the external interface.
    External,
}
