//! The program from the outside: the real binary, its output and its exit codes.

mod it {
    mod cleaning;
    mod controlling;
    mod epok;
    mod flags;
    mod help;
    mod installing;
    mod planning;
    mod program;
    mod refusals;
}
