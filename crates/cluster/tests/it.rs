//! The sources, the reporter and the election against what they meet outside: a real API server, a
//! real directory.

#[path = "it/corpus.rs"]
mod corpus;
#[path = "it/directory.rs"]
mod directory;
#[path = "it/election.rs"]
mod election;
#[path = "it/outage.rs"]
mod outage;
#[path = "it/reports.rs"]
mod reports;
#[path = "it/role.rs"]
mod role;
#[path = "it/site.rs"]
mod site;
#[path = "it/watching.rs"]
mod watching;
