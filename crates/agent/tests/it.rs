//! The agent against what it meets outside: real sockets in real namespaces, a real API server, a
//! real gateway.

mod it {
    mod cluster;
    mod gateway;
    mod links;
    mod site;
    mod transparent;
}
