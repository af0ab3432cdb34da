//! The `EdgeGateway` object: a public machine that agents dial, and on whose addresses Services are
//! published.
//!
//! [`EdgeGatewaySpec`] is the object as written and takes any text, so that one bad object never
//! hides the good ones. [`EdgeGateway::settings`] turns it into [`EdgeGatewaySettings`], which hold
//! only checked values, or names every problem at once. The API server refuses the same things, with
//! the same words.

mod grant;
mod rule;
mod settings;
mod spec;
mod status;

pub use grant::{Grant, GrantedPorts, Namespaces, ParseGrantedPortsError};
pub use settings::{
    Carrier, EdgeGatewaySettings, Endpoint, OfferedAddress, Quota, QuotaAction, SecretSource,
    SshCarrier,
};
pub use spec::{
    AddressSpec, AdoptionSecretRef, AdoptionSpec, EdgeGateway, EdgeGatewaySpec, EndpointSpec,
    GrantSpec, QuotaSpec, SshCarrierSpec,
};
pub use status::{AgentStatus, BytesStatus, CONDITIONS, Condition, EdgeGatewayStatus, QuotaStatus};
