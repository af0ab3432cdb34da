# What `make lint` needs beside the compiler: the formatter and clippy of the pinned toolchain.

lint_components=(rustfmt clippy)

lint_where() {
    :
}

lint_missing() {
    # The programs are stubs that exist for absent components too: only running them tells.
    cargo fmt --version >/dev/null 2>&1 || printf 'lint: rustfmt\n'
    cargo clippy --version >/dev/null 2>&1 || printf 'lint: clippy\n'
}

lint_setup() {
    command -v rustup >/dev/null || fail "rustfmt and clippy are missing and there is no rustup to add them: install them"
    step_begin "add ${lint_components[*]}"
    logged rustup component add "${lint_components[@]}"
    step_end
}
