//! The agent against what it meets outside: real sockets in real namespaces, a real API server, a
//! real gateway.

mod it {
    mod cluster;
    mod transparent;
}
