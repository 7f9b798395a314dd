# shellcheck shell=bash
# crictl and critest, the CRI's own client and validation suite, built from their published module. Sourced after
# common.sh.

readonly cri_tools_module=sigs.k8s.io/cri-tools
readonly cri_tools_version=v1.36.0
# What its go.mod demands.
readonly go_needed=1.26.2

# need_go: a clear word when there is no usable Go. Debian's own is too old, and no toolchain is fetched behind the
# user's back.
need_go() {
    local found=none
    if command -v go >/dev/null; then
        found=$(GOTOOLCHAIN=local go env GOVERSION)
        found=${found#go}
    fi
    [[ $found != none && $(printf '%s\n' "$go_needed" "$found" | sort -V | head -n 1) == "$go_needed" ]] ||
        die "crictl and critest $cri_tools_version need Go $go_needed or newer on PATH (found: $found):" \
            "install it from https://go.dev/dl and run this again"
}

# cri_clients: print the directory that holds crictl and critest, building them first if the cache lacks them.
cri_clients() {
    local cache key dir
    cache=$(cache_dir cri-clients)
    key=$cri_tools_version-$(sha256sum "${BASH_SOURCE[0]}" | cut -c 1-16)
    dir=$cache/$key
    if [[ ! -e $dir ]]; then
        need_go
        phase "build crictl and critest $cri_tools_version" with_lock "$cache/lock" build_cri_clients "$dir" >&2
    fi
    printf '%s\n' "$dir"
}

# build_cri_clients DIR: both programs in DIR. The module is built in a copy of its own tree, where its go.mod and
# go.sum name every dependency exactly: then nothing asks the module proxy which versions there are. critest is the
# test program of a package, which `go install` cannot make.
build_cri_clients() {
    local dir=$1 work source
    [[ ! -e $dir ]] || return 0    # another run was faster
    rm -rf "${dir%/*}"/.build.*    # left by a run that was killed: we hold the lock
    work=$(mktemp -d "${dir%/*}/.build.XXXXXX")
    source=$(cd "$work" && GOTOOLCHAIN=local GOFLAGS='' GOWORK=off \
        go mod download -json "$cri_tools_module@$cri_tools_version" | sed -n 's/^\t"Dir": "\(.*\)",\{0,1\}$/\1/p')
    [[ -d $source ]] || die "go mod download $cri_tools_module@$cri_tools_version failed: check the network and GOPROXY"
    cp -r --no-preserve=mode "$source" "$work/source"
    mkdir "$work/bin"
    (
        cd "$work/source" || exit
        export GOTOOLCHAIN=local GOFLAGS=-mod=readonly GOWORK=off CGO_ENABLED=0
        flags=(-trimpath -ldflags "-s -w -X $cri_tools_module/pkg/version.Version=${cri_tools_version#v}")
        go build "${flags[@]}" -o "$work/bin/crictl" ./cmd/crictl
        go test -c "${flags[@]}" -o "$work/bin/critest" ./cmd/critest
    )
    "$work/bin/crictl" --version | grep -q "${cri_tools_version#v}" || die "the crictl that was built does not say $cri_tools_version"
    mv -T "$work/bin" "$dir"
    chmod -R u+w "$work"
    rm -r "$work"
}
