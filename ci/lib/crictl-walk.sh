# shellcheck shell=bash
# A walk through a runtime with crictl: a pod and its containers from the pull to the end, each step with what must be
# true after it. Sourced by test-cri-in-box; results are printed like those of a test program.

readonly busybox_image=registry.k8s.io/e2e-test-images/busybox:1.29-2
readonly nginx_image=registry.k8s.io/e2e-test-images/nginx:1.14-2
# What the steps know of each other: a file per name.
readonly facts=/run/walk

# The steps in their order. The first word says who has to manage it: containerd 1.6 lacks what is `new`.
readonly steps=(
    'all  the_runtime_says_who_it_is'
    'all  runtime_and_network_are_ready'
    'new  its_handlers_are_named'
    'new  it_says_which_cgroup_driver_it_wants'
    'all  images_are_pulled_and_listed'
    'all  the_image_file_system_is_in_use'
    'all  a_pod_runs_and_has_an_address'
    'all  a_container_runs'
    'all  its_log_has_both_streams'
    'all  its_log_can_be_rotated'
    'all  exec_waits_for_the_output'
    'all  exec_streams_and_tells_the_exit_code'
    'all  exec_passes_stdin'
    'new  exec_works_over_a_websocket'
    'all  exec_on_a_terminal_has_its_size'
    'all  attach_speaks_with_the_first_process'
    'all  attach_on_a_terminal_shows_a_prompt'
    'all  stats_count_cpu_and_memory'
    'new  pod_stats_count_network_and_processes'
    'all  a_limit_changes_while_it_runs'
    'all  the_web_server_answers_at_the_address_of_the_pod'
    'all  a_port_is_forwarded'
    'new  a_port_is_forwarded_over_a_websocket'
    'all  the_daemon_restarts_and_nothing_else_does'
    'all  a_container_that_is_stopped_tells_its_exit_code'
    'all  a_container_is_removed'
    'all  a_stopped_pod_is_not_ready'
    'all  a_removed_pod_is_gone_with_its_containers'
    'new  events_told_all_of_it'
    'all  an_image_is_removed'
    'all  nothing_is_left'
)

# Seconds after which a step counts as hung; an emulated CPU needs up to ten for most.
readonly step_seconds=240

# walk: every step, each in a process of its own; one that fails or hangs does not end the walk.
walk() {
    local entry passed=0 failed=0 skipped=0 name status
    mkdir -p "$facts/logs"
    note daemon "$runtime_pid"
    if [[ $runtime == huskd ]]; then
        crictl events >"$facts/events" 2>"$facts/events.err" &
    fi
    for entry in "${steps[@]}"; do
        name=${entry##* }
        if [[ $entry == new* && $runtime == containerd ]]; then
            echo "test $name ... ignored, containerd 1.6 lacks it"
            ((++skipped))
            continue
        fi
        status=0
        timeout -k 5 "$step_seconds" "$0" step "$name" >"$facts/output" 2>&1 || status=$?
        if [[ $status -eq 0 ]]; then
            echo "test $name ... ok"
            ((++passed))
        else
            echo "test $name ... FAILED"
            # With what the step ran and what it got.
            [[ $status -lt 124 ]] || echo "    hung for $step_seconds s"
            tail -n 40 "$facts/output" | sed 's/^/    /'
            ((++failed))
        fi
    done
    if [[ $failed -eq 0 ]]; then
        echo "test result: ok. $passed passed; 0 failed; $skipped ignored;"
    else
        echo "test result: FAILED. $passed passed; $failed failed; $skipped ignored;"
    fi
}

# step NAME: a single step, in the process that is for it alone.
step() {
    set -x
    "$1"
}

# note NAME VALUE: for later steps.
note() {
    [[ -n $2 ]]
    printf '%s\n' "$2" >"$facts/$1"
}

# fact NAME: what an earlier step noted; an error when it failed.
fact() {
    cat "$facts/$1"
}

# expect JSON FILTER: jq's verdict over the JSON.
expect() {
    jq -e "$2" <<<"$1" || { printf '%s\n' "$1"; return 1; }
}

# fails CMD...: succeeds when CMD does not; a plain `!` would not end a step.
fails() {
    if "$@"; then
        return 1
    fi
}

# container NAME IMAGE COMMAND FURTHER: a container of the pod, started. COMMAND is JSON or empty for the image's own,
# FURTHER more fields in JSON. Its id is noted as NAME.
container() {
    local name=$1 image=$2 command=$3 further=${4:-{\}} id
    jq -n --arg name "$name" --arg image "$image" --argjson command "${command:-null}" --argjson further "$further" '
        {metadata: {name: $name, attempt: 1}, image: {image: $image}, log_path: ($name + ".log"),
         labels: {step: $name}, linux: {}} + (if $command then {command: $command} else {} end) + $further' \
        >"$facts/$name.json"
    id=$(crictl create "$(fact pod)" "$facts/$name.json" "$facts/pod.json")
    note "$name" "$id"
    crictl start "$id"
    [[ $(state_of "$id") == CONTAINER_RUNNING ]]
}

# state_of ID: the state of the container.
state_of() {
    crictl inspect "$1" | jq -r .status.state
}

# until_state ID STATE: wait for it.
until_state() {
    local tries=0
    until [[ $(state_of "$1") == "$2" ]]; do
        ((++tries < 120))
        sleep 0.5
    done
}

# on_terminal COMMAND: a command line of the shell with a terminal of 33 lines and 101 columns; prints what a person would
# see, without carriage returns.
on_terminal() {
    script -qec "stty rows 33 cols 101; $1" /dev/null </dev/null | tr -d '\r'
}

the_runtime_says_who_it_is() {
    local text
    text=$(crictl version)
    grep -qx "RuntimeApiVersion:  v1" <<<"$text"
    [[ $runtime != huskd ]] || grep -qx 'RuntimeName:  huskd\?' <<<"$text"
}

runtime_and_network_are_ready() {
    expect "$(crictl info)" '.status.conditions | map({(.type): .status}) | add | .RuntimeReady and .NetworkReady'
}

its_handlers_are_named() {
    expect "$(crictl info)" '[.runtimeHandlers[] | .name // ""] | contains(["", "husk"])'
}

it_says_which_cgroup_driver_it_wants() {
    crictl runtime-config | grep -Eq '^cgroup driver: +CGROUPFS$'
}

images_are_pulled_and_listed() {
    local images
    crictl pull "$busybox_image"
    crictl pull "$nginx_image"
    images=$(crictl images -o json)
    expect "$images" "[.images[].repoTags[]] | contains([\"$busybox_image\", \"$nginx_image\"])"
    expect "$images" 'all(.images[]; (.size | tonumber) > 100000)'
    expect "$(crictl inspecti "$nginx_image")" '.status.repoDigests[0] | test("^registry.k8s.io/e2e-test-images/nginx@sha256:[0-9a-f]{64}$")'
}

the_image_file_system_is_in_use() {
    expect "$(crictl imagefsinfo -o json)" '[.status.imageFilesystems[0].usedBytes.value | tonumber > 1000000] | all'
}

a_pod_runs_and_has_an_address() {
    local pod inspected
    cat >"$facts/pod.json" <<JSON
{
  "metadata": {"name": "walk", "uid": "walk-uid", "namespace": "default", "attempt": 1},
  "hostname": "walker",
  "log_directory": "$facts/logs",
  "labels": {"walk": "yes"},
  "annotations": {"note": "kept"},
  "dns_config": {"servers": ["192.0.2.53"], "searches": ["walk.test"]},
  "port_mappings": [{"container_port": 80, "host_port": 12010}],
  "linux": {}
}
JSON
    pod=$(crictl runp ${handler:+--runtime "$handler"} "$facts/pod.json")
    note pod "$pod"
    inspected=$(crictl inspectp "$pod")
    expect "$inspected" '.status.state == "SANDBOX_READY" and .status.metadata.name == "walk"'
    expect "$inspected" '.status.labels.walk == "yes" and .status.annotations.note == "kept"'
    note address "$(jq -r .status.network.ip <<<"$inspected")"
    [[ $(fact address) == 10.88.* ]]
    expect "$(crictl pods --label walk=yes -o json)" ".items | length == 1 and .[0].id == \"$pod\""
}

a_container_runs() {
    local listed
    container talker "$busybox_image" '["sh", "-c",
        "echo to stdout; echo to stderr >&2; trap \"exit 7\" TERM; while :; do sleep 0.2; done"]'
    listed=$(crictl ps --pod "$(fact pod)" -o json)
    expect "$listed" ".containers | length == 1 and .[0].id == \"$(fact talker)\" and .[0].metadata.name == \"talker\""
    expect "$(crictl inspect "$(fact talker)")" ".status.logPath == \"$facts/logs/talker.log\" and .status.image.image != \"\""
}

its_log_has_both_streams() {
    local tries=0
    until [[ $(crictl logs "$(fact talker)" 2>&1 | wc -l) -ge 2 ]]; do
        ((++tries < 60))
        sleep 0.5
    done
    [[ $(crictl logs "$(fact talker)" 2>/dev/null) == 'to stdout' ]]
    [[ $(crictl logs "$(fact talker)" 2>&1 >/dev/null) == 'to stderr' ]]
    grep -qE '^[0-9T:.-]+(Z|[+-][0-9:]+) stdout F to stdout$' "$facts/logs/talker.log"
    [[ $(crictl logs --tail 1 "$(fact talker)" 2>&1) == 'to std'* ]]
}

its_log_can_be_rotated() {
    mv "$facts/logs/talker.log" "$facts/logs/talker.log.1"
    crictl logs --reopen "$(fact talker)"
    [[ -e $facts/logs/talker.log && ! -s $facts/logs/talker.log ]]
}

exec_waits_for_the_output() {
    [[ $(crictl exec --sync "$(fact talker)" hostname) == walker ]]
    grep -qx 'nameserver 192.0.2.53' <<<"$(crictl exec --sync "$(fact talker)" cat /etc/resolv.conf)"
}

exec_streams_and_tells_the_exit_code() {
    [[ $(crictl exec "$(fact talker)" sh -c 'echo one; echo two >&2' 2>/dev/null) == one ]]
    [[ $(crictl exec "$(fact talker)" sh -c 'echo one; echo two >&2' 2>&1 >/dev/null) == two ]]
    # crictl has one exit status for all that fails, and says which code it was.
    fails crictl exec "$(fact talker)" sh -c 'exit 42' 2>"$facts/said"
    grep -q 'exit code 42' "$facts/said"
}

exec_passes_stdin() {
    [[ $(seq 50000 | crictl exec -i "$(fact talker)" sh -c 'md5sum; echo done') == "$(seq 50000 | md5sum)
done" ]]
}

exec_works_over_a_websocket() {
    [[ $(echo there | crictl exec -i --transport websocket "$(fact talker)" cat) == there ]]
    fails crictl exec --transport websocket "$(fact talker)" sh -c 'exit 42' 2>"$facts/said"
    grep -q 'exit code 42' "$facts/said"
}

exec_on_a_terminal_has_its_size() {
    local seen
    # The size comes after the start, as from any terminal.
    seen=$(on_terminal "crictl exec -it $(fact talker) sh -c 'tty; i=0; until [ \"\$(stty size)\" = \"33 101\" ] || [ \$i = 20 ]; do sleep 0.5; i=\$((i + 1)); done; stty size'")
    grep -qE '/dev/(pts/[0-9]|console)' <<<"$seen"
    grep -qx '33 101' <<<"$seen"
}

attach_speaks_with_the_first_process() {
    container listener "$busybox_image" '["sh"]' '{"stdin": true, "stdin_once": true}'
    [[ $({ echo 'echo heard: $((6 * 7))'; sleep 3; } | crictl attach -i "$(fact listener)") == 'heard: 42' ]]
    # With its only stdin at an end, so is the shell.
    until_state "$(fact listener)" CONTAINER_EXITED
    expect "$(crictl inspect "$(fact listener)")" '.status.exitCode // 0 | . == 0'
}

attach_on_a_terminal_shows_a_prompt() {
    container terminal "$busybox_image" '["sh"]' '{"stdin": true, "tty": true}'
    (sleep 5; printf 'echo here: $((6 * 7)); exit\r'; sleep 5) |
        script -qec "crictl attach -it $(fact terminal)" /dev/null | tr -d '\r' >"$facts/seen"
    grep -q '^here: 42' "$facts/seen"
    until_state "$(fact terminal)" CONTAINER_EXITED
}

stats_count_cpu_and_memory() {
    expect "$(crictl stats --id "$(fact talker)" -o json)" '.stats | length == 1 and
        (.[0].memory.workingSetBytes.value | tonumber) > 10000 and (.[0].cpu.usageCoreNanoSeconds.value | tonumber) > 1000 and
        .[0].attributes.labels.step == "talker"'
}

pod_stats_count_network_and_processes() {
    expect "$(crictl statsp --id "$(fact pod)" -o json)" '.stats | length == 1 and
        (.[0].linux.memory.workingSetBytes.value | tonumber) > 10000 and
        (.[0].linux.cpu.usageCoreNanoSeconds.value | tonumber) > 1000 and
        (.[0].linux.process.processCount.value | tonumber) >= 1 and
        (.[0].linux.network.defaultInterface.name | length) > 0 and (.[0].linux.containers | length) >= 1'
}

a_limit_changes_while_it_runs() {
    crictl update --memory $((96 << 20)) "$(fact talker)"
    [[ $(crictl exec --sync "$(fact talker)" cat /sys/fs/cgroup/memory.max) == $((96 << 20)) ]]
    expect "$(crictl inspect "$(fact talker)")" '.status.resources.linux.memoryLimitInBytes | tonumber == 100663296'
}

# welcomed URL: the page of the web server is there, once the server is up.
welcomed() {
    grep -q 'Welcome to nginx!' <<<"$(curl -fsS --retry 60 --retry-all-errors --retry-delay 1 --max-time 10 "$1")"
}

the_web_server_answers_at_the_address_of_the_pod() {
    container web "$nginx_image" ''
    welcomed "http://$(fact address)/"
    # And where its port is published.
    welcomed http://127.0.0.1:12010/
}

# forwarded TRANSPORT PORT: two connections through a forwarded port.
forwarded() {
    local pid _
    crictl port-forward --transport "$1" "$(fact pod)" "$2:80" & pid=$!
    # shellcheck disable=SC2064  # this very process
    trap "kill $pid" EXIT
    for _ in 1 2; do
        welcomed "http://127.0.0.1:$2/"
    done
}

a_port_is_forwarded() {
    forwarded spdy 12011
}

a_port_is_forwarded_over_a_websocket() {
    forwarded websocket 12012
}

the_daemon_restarts_and_nothing_else_does() {
    local before after
    before=$(crictl exec --sync "$(fact talker)" cut -d ' ' -f 22 /proc/1/stat)
    kill "$(fact daemon)"
    while kill -0 "$(fact daemon)"; do sleep 0.2; done
    start_runtime
    note daemon "$runtime_pid"
    [[ $(state_of "$(fact talker)") == CONTAINER_RUNNING && $(state_of "$(fact listener)") == CONTAINER_EXITED ]]
    expect "$(crictl inspectp "$(fact pod)")" '.status.state == "SANDBOX_READY"'
    after=$(crictl exec --sync "$(fact talker)" cut -d ' ' -f 22 /proc/1/stat)
    [[ $before == "$after" ]]
    # Its output still has a reader.
    [[ $(crictl exec "$(fact talker)" echo again) == again ]]
}

a_container_that_is_stopped_tells_its_exit_code() {
    crictl stop --timeout 30 "$(fact talker)"
    expect "$(crictl inspect "$(fact talker)")" '.status.state == "CONTAINER_EXITED" and .status.exitCode == 7 and
        (.status.finishedAt > .status.startedAt)'
}

a_container_is_removed() {
    crictl rm "$(fact talker)"
    fails crictl inspect "$(fact talker)"
    expect "$(crictl ps -a -o json)" "[.containers[].id] | contains([\"$(fact talker)\"]) | not"
}

a_stopped_pod_is_not_ready() {
    crictl stopp "$(fact pod)"
    expect "$(crictl inspectp "$(fact pod)")" '.status.state == "SANDBOX_NOTREADY"'
    [[ $(state_of "$(fact web)") == CONTAINER_EXITED ]]
    # Twice is no error.
    crictl stopp "$(fact pod)"
}

a_removed_pod_is_gone_with_its_containers() {
    crictl rmp "$(fact pod)"
    [[ -z $(crictl pods -q) && -z $(crictl ps -aq) ]]
}

# The daemon's restart ends the stream; what was told before it counts, and afterwards a pod of its own.
events_told_all_of_it() {
    local pid pod
    jq -es '[.[].containerEventType] | contains(["CONTAINER_CREATED_EVENT", "CONTAINER_STARTED_EVENT", "CONTAINER_STOPPED_EVENT"])' \
        "$facts/events"
    crictl events >"$facts/events.2" & pid=$!
    # shellcheck disable=SC2064  # this very process
    trap "kill $pid" EXIT
    sleep 2
    sed 's/"walk-uid"/"walk-uid-2"/; /host_port/d' "$facts/pod.json" >"$facts/pod2.json"
    pod=$(crictl runp "$facts/pod2.json")
    crictl stopp "$pod"
    crictl rmp "$pod"
    sleep 2
    jq -es --arg pod "$pod" '[.[] | select(.podSandboxStatus.id == $pod or .containerId == $pod) | .containerEventType] |
        contains(["CONTAINER_CREATED_EVENT", "CONTAINER_STARTED_EVENT", "CONTAINER_STOPPED_EVENT", "CONTAINER_DELETED_EVENT"])' \
        "$facts/events.2"
}

an_image_is_removed() {
    crictl rmi "$nginx_image"
    expect "$(crictl images -o json)" "[.images[].repoTags[]] | contains([\"$nginx_image\"]) | not"
    fails crictl inspecti "$nginx_image"
}

nothing_is_left() {
    local name
    [[ -z $(ip -o link show type veth) && -z $(ls /run/netns) ]]
    fails compgen -G '/var/lib/cni/networks/test/10.*'
    for name in husk-vmm containerd-shim; do
        fails pgrep -f "/$name"
    done
    fails grep -E ' /(run|var/lib)/[^ ]*(rootfs|shm|netns)' /proc/mounts
}
