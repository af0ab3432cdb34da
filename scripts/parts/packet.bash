# Debian's programs that tests with real packets, real sshd and real peers use. Pinned by the Debian release.

# program=package
packet_programs=(
    cloud-init=cloud-init
    conntrack=conntrack
    ethtool=ethtool
    haproxy=haproxy
    ip=iproute2
    iperf3=iperf3
    iptables=iptables
    nft=nftables
    nsenter=util-linux
    ping=iputils-ping
    setpriv=util-linux
    ssh=openssh-client
    sshd=openssh-server
    sudo=sudo
    sysctl=procps
)

# Where programs unpacked by an unprivileged user lie.
debian_root=$cache/debian/root
debian_path=$debian_root/usr/sbin:$debian_root/usr/bin:$debian_root/sbin:$debian_root/bin
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin:$debian_path

packet_where() {
    printf 'packet=%s\n' "$debian_root"
}

# The packages whose program is not there.
packet_packages() {
    local pair
    for pair in "${packet_programs[@]}"; do
        command -v "${pair%%=*}" >/dev/null || printf '%s\n' "${pair#*=}"
    done
}

packet_missing() {
    local pair
    for pair in "${packet_programs[@]}"; do
        command -v "${pair%%=*}" >/dev/null || printf 'packet: the program %s (Debian package %s)\n' "${pair%%=*}" "${pair#*=}"
    done
}

packet_setup() {
    local packages
    mapfile -t packages < <(packet_packages | sort -u)
    debian_provide "${packages[@]}"
}

# Makes Debian packages available: installed by root, unpacked into the cache by anyone else.
debian_provide() {
    (($#)) || return 0
    command -v apt-get >/dev/null || fail "this is not Debian: install what provides these Debian packages: $*"
    if ((EUID == 0)); then
        step_begin "install $*"
        debian_install "$@"
    else
        step_begin "unpack $* below $debian_root"
        debian_unpack "$@"
    fi
    step_end
    if ((EUID != 0)); then
        printf 'setup: add them to your PATH: export PATH="$PATH:%s" LD_LIBRARY_PATH="%s"\n' "$debian_path" \
            "$debian_root/usr/lib/$(uname -m)-linux-gnu:$debian_root/lib/$(uname -m)-linux-gnu"
    fi
}

debian_install() {
    local policy=/usr/sbin/policy-rc.d ours=
    if [[ -d /run/systemd/system && ! -e $policy ]]; then
        # Only the programs are wanted: no sshd and no haproxy shall start serving on this machine.
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
        ours=yes
        trap 'rm -f -- /usr/sbin/policy-rc.d' EXIT
    fi
    export DEBIAN_FRONTEND=noninteractive
    # The lists may be absent or outdated; they are fetched only when an installation fails without.
    if ! apt-get install -qq --yes --no-install-recommends "$@" >/dev/null 2>&1; then
        logged apt-get update -qq
        logged apt-get install -qq --yes --no-install-recommends "$@"
    fi
    if [[ -n $ours ]]; then
        rm -f -- "$policy"
        trap - EXIT
    fi
}

debian_unpack() {
    local packages staging archive
    # What an installation would bring, dependencies included.
    mapfile -t packages < <(apt-get --simulate --quiet --no-install-recommends install "$@" 2>/dev/null | awk '$1 == "Inst" { print $2 }')
    ((${#packages[@]})) || fail "apt-get finds no way to install $*: ask an administrator to run \`apt-get update\` or to install them"
    staging=$(mktemp -d "$cache/.debian-XXXXXX")
    logged env -C "$staging" apt-get download "${packages[@]}"
    mkdir -p "$debian_root"
    for archive in "$staging"/*.deb; do
        logged dpkg --extract "$archive" "$debian_root"
    done
    rm -rf -- "$staging"
    # An installation would make these links.
    local program="$debian_root/usr/sbin/xtables-nft-multi" name
    if [[ -x $program ]]; then
        for name in {iptables,ip6tables}{,-save,-restore}; do
            ln -sfn "${program##*/}" "${program%/*}/$name"
        done
    fi
}
