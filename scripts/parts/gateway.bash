# The Gateway API's definitions (standard channel), taken from its module.

gateway_module=$tree/testbed/gateway-api
gateway_version=$(module_version "$gateway_module/go.mod" sigs.k8s.io/gateway-api)
gateway_directory=$cache/gateway-api/$gateway_version-$(fingerprint definitions "$gateway_module/go.mod" "$gateway_module/go.sum")

gateway_where() {
    printf 'gateway-api=%s\n' "$gateway_directory"
}

gateway_missing() {
    [[ -f $gateway_directory/standard.yaml ]] || printf 'gateway: definitions of the Gateway API\n'
}

gateway_setup() {
    local module definition
    use_go
    step_begin "fetch the definitions of the Gateway API $gateway_version"
    mkdir -p "$gateway_directory"
    logged env -C "$gateway_module" "$go_program" mod download sigs.k8s.io/gateway-api
    module=$(env -C "$gateway_module" "$go_program" list -m -f '{{ .Dir }}' sigs.k8s.io/gateway-api)
    # One stream of documents, in the order of their names.
    for definition in "$module"/config/crd/standard/*.yaml; do
        printf -- '---\n'
        cat -- "$definition"
    done >"$gateway_directory/standard.yaml.partial"
    mv -- "$gateway_directory/standard.yaml.partial" "$gateway_directory/standard.yaml"
    step_end
}
