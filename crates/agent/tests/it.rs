//! The agent against what it meets outside: real sockets in real namespaces, a real API server.

mod it {
    mod transparent;
}
