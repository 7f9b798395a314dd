# shellcheck shell=bash
#
# What every script of the tree shares: messages, elapsed time per phase, the cache directory,
# Debian packages on demand, and the guest kernel. Sourced, never run; it changes no shell option.

# The checkout.
HUSK_SOURCE=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

# log TEXT...: one line for a person, on stderr, so that stdout stays data.
log() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
}

# die TEXT...: a message that names the thing, the cause and the mend; exit status 1.
die() {
    log "error: $*"
    exit 1
}

# phase NAME CMD [ARG...]: run CMD, saying what started and how many seconds it took.
phase() {
    local name=$1 began=$SECONDS status
    shift
    log "$name ..."
    "$@"    # not `|| status=$?`, which would switch errexit off all through CMD
    status=$?
    if [[ $status -eq 0 ]]; then
        log "$name: done in $((SECONDS - began)) s"
    else
        log "$name: failed with status $status after $((SECONDS - began)) s"
    fi
    return "$status"
}

# cache_dir [SUBDIR]: the directory for what can always be made again, created if missing.
cache_dir() {
    local base=${XDG_CACHE_HOME:-${HOME:?set HOME or XDG_CACHE_HOME to say where to cache}/.cache}
    local dir=$base/husk${1:+/$1}
    mkdir -p "$dir" || die "cannot create the cache directory $dir; set XDG_CACHE_HOME to a writable place"
    printf '%s\n' "$dir"
}

# with_lock FILE CMD [ARG...]: run CMD while holding the lock FILE, so that two runs do not make the
# same thing at once. CMD must look again whether the other run already made it.
with_lock() {
    local fd status
    exec {fd}>"$1"
    if ! flock -n "$fd"; then
        log "waiting for another run that holds $1"
        flock "$fd"
    fi
    shift
    "$@"    # not `|| status=$?`, which would switch errexit off all through CMD
    status=$?
    exec {fd}>&-
    return "$status"
}

# package_installed PKG: whether the Debian package is installed.
package_installed() {
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null) == installed ]]
}

# need_packages PKG...: install the Debian packages that are missing. Does nothing, as any user,
# when none is. The package index is refreshed at most once per process tree.
need_packages() {
    local pkg missing=() out attempt
    for pkg in "$@"; do
        package_installed "$pkg" || missing+=("$pkg")
    done
    [[ ${#missing[@]} -eq 0 ]] && return 0
    command -v apt-get >/dev/null ||
        die "missing packages (${missing[*]}) and no apt-get here; install their like by hand"
    [[ $EUID -eq 0 ]] ||
        die "missing packages: run as root: apt-get install ${missing[*]}"
    log "installing ${missing[*]}"
    refresh_package_index
    # Twice, because another apt-get may empty the archive of downloads between our download and our unpacking.
    for attempt in 1 2; do
        out=$(DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
            -o DPkg::Lock::Timeout=300 "${missing[@]}" 2>&1 </dev/null) && return 0
        [[ $attempt -eq 2 ]] || sleep 5
    done
    die "apt-get install ${missing[*]} failed: ${out##*$'\n'}"
}

# refresh_package_index: apt-get update, once per process tree.
refresh_package_index() {
    [[ -n ${HUSK_PACKAGE_INDEX_FRESH:-} ]] && return 0
    apt-get update -qq -o DPkg::Lock::Timeout=300 >/dev/null 2>&1 ||
        log "apt-get update failed; going on with the package index at hand"
    export HUSK_PACKAGE_INDEX_FRESH=1
}

# build_kernel: print the path of the guest kernel, building it first if the cache lacks it.
build_kernel() {
    "$HUSK_SOURCE/kernel-config/build"
}
