//! Publishing from the outside: manifests in; ports, backends, findings and statuses out, as text.

mod addresses;
mod http;
mod listeners;
mod manifests;
mod properties;
mod routes;
mod services;
mod statuses;
mod view;
mod world;
