# shellcheck shell=bash
# Which QEMU runs a box whose CPUs are emulated. Debian 12's own, 7.2, damages registers of nested guests now and then
# (docs/architecture.md, "The box") and takes a sixth more CPU time; the one of its backports is unpacked into the cache,
# where it changes nothing for others on the machine. Sourced after common.sh.

readonly qemu_packages=(qemu-system-x86 qemu-system-common qemu-system-data seabios)

# emulator: print the words of the command, one a line: the backport's QEMU, or the installed one where there is none.
emulator() {
    local cache dir codename
    cache=$(cache_dir box)
    codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
    dir=$cache/qemu-$codename-backports
    if [[ ! -e $dir && $codename == bookworm && -z $(find "$dir.failed" -mmin -1440 2>/dev/null) ]]; then
        with_lock "$cache/lock" fetch_qemu "$codename" "$dir" >&2 || {
            touch "$dir.failed"
            log "no newer QEMU from $codename-backports; using the installed one (asked again tomorrow)"
        }
    fi
    if [[ -e $dir ]]; then
        printf '%s\n' "$dir/usr/bin/qemu-system-x86_64" -L "$dir/usr/share/qemu" -L "$dir/usr/share/seabios"
    else
        echo qemu-system-x86_64
    fi
}

# fetch_qemu CODENAME DIR: unpack the backport in DIR, from the archive that the machine's other packages come from.
fetch_qemu() {
    local codename=$1 dir=$2 work site deb apt
    [[ ! -e $dir ]] || return 0    # another run was faster
    site=$(apt-get indextargets --format '$(SITE)' "Codename: $codename" 'Component: main' 'Created-By: Packages' | head -n 1)
    [[ -n $site ]] || return 1
    rm -rf "${dir%/*}"/.qemu.*    # left by a run that was killed: we hold the lock
    work=$(mktemp -d "${dir%/*}/.qemu.XXXXXX")
    mkdir "$work"/{lists,debs,root}
    printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s-backports main\n' "$site" "$codename" \
        >"$work/sources.list"
    apt=(apt-get -qq -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=/dev/null
        -o Dir::State::lists="$work/lists" -o Dir::Cache="$work/cache" -o APT::Sandbox::User=root)
    log "fetching QEMU from $codename-backports for the box"
    (cd "$work/debs" && "${apt[@]}" update && "${apt[@]}" download "${qemu_packages[@]}") >/dev/null 2>&1 || return 1
    for deb in "$work"/debs/*.deb; do
        dpkg-deb -x "$deb" "$work/root" || return 1
    done
    # Its libraries are those of the installed one; a program that lacks one says so here.
    "$work/root/usr/bin/qemu-system-x86_64" --version >/dev/null || return 1
    chmod 755 "$work/root"
    mv -T "$work/root" "$dir"
    rm -r "$work"
}
