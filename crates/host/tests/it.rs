//! How commands reach a host, with real processes, a real sshd and a real kernel.

mod it {
    mod local;
    mod scripted;
}
