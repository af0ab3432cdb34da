# What `make conformance` runs beside the Gateway API's definitions: the official suite as a program, and the images
# that its pods ask for under their public names.

conformance_module=$tree/testbed/gateway-api
conformance_version=$(module_version "$conformance_module/go.mod" sigs.k8s.io/gateway-api/conformance)
coredns_module=$tree/testbed/coredns
coredns_version=$(module_version "$coredns_module/go.mod" github.com/coredns/coredns)

# The names that the suite's manifests have. The programs are those of the pinned modules, whatever a name says.
conformance_echo=registry.k8s.io/gateway-api/echo-basic
conformance_echo_names=$conformance_echo:v1.5.1,$conformance_echo:v1.6.0-dev.2,$conformance_echo:v1.6.0-dev.3
conformance_dns_names=registry.k8s.io/coredns/coredns:v1.12.2

conformance_directory=$cache/conformance/$conformance_version-$(
    fingerprint "$conformance_echo_names $conformance_dns_names" "$conformance_module"/{go.mod,go.sum,conformance_test.go} \
        "$coredns_module"/go.{mod,sum} "$images_module/archive/main.go"
)

conformance_where() {
    printf 'conformance=%s\n' "$conformance_directory"
}

conformance_missing() {
    local file
    for file in conformance.test echo-basic.tar coredns.tar; do
        [[ -f $conformance_directory/$file ]] || printf 'conformance: %s\n' "$file"
    done
}

conformance_setup() {
    use_go
    if [[ ! -x $conformance_directory/conformance.test ]]; then
        step_begin "build the Gateway API conformance suite $conformance_version"
        mkdir -p "$conformance_directory"
        logged env -C "$conformance_module" nice -n 5 "$go_program" test -c -buildvcs=false -ldflags '-s -w' \
            -o "$conformance_directory/conformance.test.partial" .
        mv -- "$conformance_directory/conformance.test.partial" "$conformance_directory/conformance.test"
        step_end
    fi
    go_build "$conformance_module" sigs.k8s.io/gateway-api/conformance/echo-basic "$conformance_directory/echo-basic"
    go_build "$coredns_module" github.com/coredns/coredns "$conformance_directory/coredns" \
        "-X github.com/coredns/coredns/coremain.GitCommit=v$coredns_version"
    # It packs the programs; tests need it anyhow.
    [[ -z $(images_missing) ]] || images_setup
    conformance_pack "$conformance_echo_names" echo-basic
    conformance_pack "$conformance_dns_names" coredns
}

# usage: conformance_pack NAMES PROGRAM
conformance_pack() {
    local program=$conformance_directory/$2
    "$images_directory/archive" "$1" "$program" "$program.tar.partial"
    mv -- "$program.tar.partial" "$program.tar"
}
