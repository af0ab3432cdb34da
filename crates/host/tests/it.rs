//! How commands reach a host, with real processes, a real sshd and a real kernel.

mod it {
    mod changes;
    mod confirmed;
    mod local;
    mod scripted;
    mod site;
    mod ssh;
    mod sudo;
}
