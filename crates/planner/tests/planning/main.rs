//! Planning from the outside: objects and facts in, plan and findings out, as text.

mod conflicts;
mod corpus;
mod hosts;
mod manifests;
mod nodes;
mod objects;
mod pods;
mod properties;
mod services;
mod standing;
mod status;
mod view;
mod world;
