# Tunnels of others, from their own registries, for `make bench JOB=publish` to measure beside ours.

rathole_version=0.5.0
bore_version=0.6.0
rathole_directory=$cache/rathole-$rathole_version
bore_directory=$cache/bore-$bore_version

peers_where() {
    printf 'rathole=%s\n' "$rathole_directory/bin"
    printf 'bore=%s\n' "$bore_directory/bin"
}

peers_missing() {
    [[ -x $rathole_directory/bin/rathole ]] || printf 'peers: rathole\n'
    [[ -x $bore_directory/bin/bore ]] || printf 'peers: bore\n'
}

# usage: peer_build DIRECTORY PACKAGE VERSION
peer_build() {
    step_begin "build $2 $3"
    # Not in the tree's target directory, which is busy and is not for programs of others. Not
    # `--locked`: what rathole locked does not build with today's compiler.
    logged env CARGO_TARGET_DIR="$1/target" nice -n 5 \
        cargo install --quiet --root "$1" --version "$3" "$2"
    rm -rf -- "$1/target"
    step_end
}

peers_setup() {
    [[ -x $rathole_directory/bin/rathole ]] || peer_build "$rathole_directory" rathole "$rathole_version"
    [[ -x $bore_directory/bin/bore ]] || peer_build "$bore_directory" bore-cli "$bore_version"
}
