# shellcheck shell=bash
# Debian packages that are used without being installed: what an installed one would start or replace on the machine
# stays away. Sourced after common.sh.

# unpacked_package NAME: print a directory of the cache that holds the files of the package's newest known version.
unpacked_package() {
    local name=$1 cache version dir
    cache=$(cache_dir debian)
    version=$(apt-cache policy "$name" | sed -n 's/^ *Candidate: //p')
    if [[ -z $version || $version == '(none)' ]]; then
        refresh_package_index
        version=$(apt-cache policy "$name" | sed -n 's/^ *Candidate: //p')
    fi
    [[ -n $version && $version != '(none)' ]] || die "no package index names $name: run apt-get update as root"
    dir=$cache/$name-${version//[^A-Za-z0-9.+~-]/_}
    [[ -e $dir ]] || with_lock "$cache/lock" unpack_package "$name=$version" "$dir" >&2
    printf '%s\n' "$dir"
}

# unpack_package NAME=VERSION DIR: download the package and unpack it in DIR.
unpack_package() {
    local deb=$1 dir=$2 work
    [[ ! -e $dir ]] || return 0    # another run was faster
    rm -rf "${dir%/*}"/.unpack.*    # left by a run that was killed: we hold the lock
    work=$(mktemp -d "${dir%/*}/.unpack.XXXXXX")
    log "fetching $deb"
    (cd "$work" && apt-get download -qq -o APT::Sandbox::User=root "$deb" >/dev/null 2>&1) ||
        die "apt-get download $deb failed: check the network and the package index"
    mkdir "$work/root"
    dpkg-deb -x "$work"/*.deb "$work/root"
    mv -T "$work/root" "$dir"
    rm -r "$work"
}
