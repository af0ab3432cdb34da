# A whole Kubernetes, built from its Go modules: etcd, the control plane, kubectl, and what a node runs. runc and the
# CNI plugins come from Debian.

kubernetes_module=$tree/testbed/kubernetes
containerd_module=$tree/testbed/containerd
kubernetes_version=$(module_version "$kubernetes_module/go.mod" k8s.io/kubernetes)
containerd_version=$(module_version "$containerd_module/go.mod" github.com/containerd/containerd/v2)

kubernetes_programs=(kube-apiserver kube-controller-manager kubectl kube-scheduler kubelet kube-proxy)
containerd_programs=(containerd containerd-shim-runc-v2 ctr)

# Without these Kubernetes calls itself v0.0.0, and clients choose their ways by its version.
IFS=. read -r kubernetes_major kubernetes_minor _ <<<"$kubernetes_version"
kubernetes_ldflags="-X k8s.io/component-base/version.gitVersion=v$kubernetes_version"
kubernetes_ldflags+=" -X k8s.io/component-base/version.gitMajor=$kubernetes_major"
kubernetes_ldflags+=" -X k8s.io/component-base/version.gitMinor=$kubernetes_minor"
kubernetes_ldflags+=" -X k8s.io/component-base/version.gitTreeState=clean"

containerd_ldflags="-X github.com/containerd/containerd/v2/version.Version=$containerd_version"
# Storage drivers that the test bed does not use.
containerd_tags='no_btrfs no_zfs no_devmapper no_aufs'

kubernetes_directory=$cache/kubernetes/$kubernetes_version-$(
    fingerprint "$kubernetes_ldflags" "$kubernetes_module/go.mod" "$kubernetes_module/go.sum"
)
containerd_directory=$cache/containerd/$containerd_version-$(
    fingerprint "$containerd_ldflags $containerd_tags" "$containerd_module/go.mod" "$containerd_module/go.sum"
)

kubernetes_where() {
    printf 'kubernetes=%s\ncontainerd=%s\n' "$kubernetes_directory" "$containerd_directory"
    printf 'cni=%s\n' "$(cni_directory)"
}

# Debian's place for CNI plugins, or the same below the directory of unpacked packages.
cni_directory() {
    if [[ ! -x /usr/lib/cni/bridge && -x $debian_root/usr/lib/cni/bridge ]]; then
        printf '%s\n' "$debian_root/usr/lib/cni"
    else
        printf '/usr/lib/cni\n'
    fi
}

kubernetes_missing() {
    local program
    for program in etcd "${kubernetes_programs[@]}"; do
        [[ -x $kubernetes_directory/$program ]] || printf 'kubernetes: %s\n' "$program"
    done
    for program in "${containerd_programs[@]}"; do
        [[ -x $containerd_directory/$program ]] || printf 'kubernetes: %s\n' "$program"
    done
    command -v runc >/dev/null || printf 'kubernetes: the program runc (Debian package runc)\n'
    [[ -x $(cni_directory)/bridge ]] || printf 'kubernetes: CNI plugins (Debian package containernetworking-plugins)\n'
}

kubernetes_setup() {
    local program packages=()
    command -v runc >/dev/null || packages+=(runc)
    [[ -x $(cni_directory)/bridge ]] || packages+=(containernetworking-plugins)
    debian_provide "${packages[@]}"

    use_go
    # The order matters: each program compiles only what those before it did not need.
    go_build "$kubernetes_module" go.etcd.io/etcd/server/v3 "$kubernetes_directory/etcd"
    for program in "${kubernetes_programs[@]}"; do
        go_build "$kubernetes_module" "k8s.io/kubernetes/cmd/$program" "$kubernetes_directory/$program" "$kubernetes_ldflags"
    done
    for program in "${containerd_programs[@]}"; do
        go_build "$containerd_module" "github.com/containerd/containerd/v2/cmd/$program" \
            "$containerd_directory/$program" "$containerd_ldflags" "$containerd_tags"
    done
}
