//! The program from the outside: the real binary, its output and its exit codes.

mod it {
    mod applying;
    mod cleaning;
    mod controlling;
    mod corpus;
    mod declaring;
    mod epok;
    mod flags;
    mod gateways;
    mod help;
    mod in_cluster;
    mod installing;
    mod long_paths;
    mod migrating;
    mod over_ssh;
    mod planning;
    mod program;
    mod refusals;
}
