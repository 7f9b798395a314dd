# The words of the scripts. Each prints a line: a check's name, a tab, and what was seen.
#
#   say NAME COMMAND...     what the command prints and, when it fails, its code
#   try NAME COMMAND...     ok, or the last words of its complaint
#   status KEY...           lines of /proc/self/status
#   limit NAME              a line of /proc/self/limits
#   group FILE              a file of the container's own cgroup
#
# `sh_ SCRIPT` and `put TEXT FILE` are commands for the first two.

say() {
    name=$1; shift
    said=$("$@" 2>&1); code=$?
    [ $code = 0 ] || said="$said [$code]"
    printf '%s\t%s\n' "$name" "$(printf %s "$said" | tr '\n\t' '/ ')"
}
try() {
    name=$1; shift
    if said=$( ("$@") 2>&1 >/dev/null); then said=ok; else said=${said##*: }; fi
    printf '%s\t%s\n' "$name" "$(printf %s "$said" | tr '\n\t' '/ ')"
}
sh_() { sh -c "$1"; }
put() { printf %s "$1" >"$2"; }
status() { for key in "$@"; do say "$key" sh_ "grep ^$key: /proc/self/status | cut -f 2-"; done; }
limit() { say "limit-$1" sh_ "grep '^Max $1  ' /proc/self/limits | sed 's/  */ /g'"; }
group() { say "$1" cat "/sys/fs/cgroup/$1"; }
