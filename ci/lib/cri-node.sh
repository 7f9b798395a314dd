# shellcheck shell=bash
# What a node has around a container runtime, made inside the box: file systems, a network, a registry under every
# registry's name, and the runtime itself, huskd or containerd with runc. Sourced by test-cri-in-box.

readonly registry=127.0.0.1:5000
runtime_pid=''

# make_node: everything but the runtime.
make_node() {
    local dir
    # ID-mapped mounts need a file system that has them; the box's root is an overlay over 9p, which has none.
    mkdir -p /scratch/var-lib/{husk,containerd,cni}
    mount --bind /scratch/var-lib /var/lib
    # As systemd makes every mount of a host: others would send no news of what is mounted below them to anybody.
    mount --make-rshared /
    # Each runtime's own, and all the same.
    for dir in /etc/husk /etc/containerd; do
        mkdir -p "$dir/certs.d/_default"
        cat >"$dir/certs.d/_default/hosts.toml" <<TOML
server = "http://$registry"

[host."http://$registry"]
  capabilities = ["pull", "resolve"]
TOML
    done
    make_network
    start_registry
}

# make_network: one CNI network, with Debian's plugins.
make_network() {
    mkdir -p /etc/cni/net.d
    rm -f /etc/cni/net.d/*
    cat >/etc/cni/net.d/10-test.conflist <<'JSON'
{
  "cniVersion": "1.0.0",
  "name": "test",
  "plugins": [
    {
      "type": "bridge",
      "bridge": "cni0",
      "isGateway": true,
      "ipMasq": true,
      "hairpinMode": true,
      "ipam": {
        "type": "host-local",
        "ranges": [[{"subnet": "10.88.0.0/16"}]],
        "routes": [{"dst": "0.0.0.0/0"}]
      }
    },
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
JSON
}

start_registry() {
    cat >/run/registry.yml <<YAML
version: 0.1
log: {level: error}
storage:
  filesystem: {rootdirectory: $HUSK_CRI_IMAGES/registry}
  maintenance: {uploadpurging: {enabled: false}, readonly: {enabled: true}}
http: {addr: "$registry"}
YAML
    docker-registry serve /run/registry.yml >/run/registry.log 2>&1 &
    wait_until 60 "docker-registry does not answer; its log: /run/registry.log" curl -fs -o /dev/null "http://$registry/v2/"
}

# wait_until SECONDS COMPLAINT CMD...: run CMD until it succeeds.
wait_until() {
    local deadline=$((SECONDS + $1)) complaint=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        if [[ $SECONDS -ge $deadline ]]; then
            log "$complaint"
            return 1
        fi
        sleep 0.2
    done
}

# runtime_socket: where the runtime under test serves.
runtime_socket() {
    case $runtime in
        huskd) echo /run/husk/cri.sock ;;
        containerd) echo /run/containerd/containerd.sock ;;
    esac
}

# start_runtime: the daemon, serving; its log grows in $results/$runtime.log.
start_runtime() {
    mkdir -p "$results"
    # An emulated CPU may take long for any answer.
    cat >/etc/crictl.yaml <<YAML
runtime-endpoint: unix://$(runtime_socket)
image-endpoint: unix://$(runtime_socket)
timeout: 300
YAML
    "start_$runtime" >>"$results/$runtime.log" 2>&1 &
    runtime_pid=$!
    local deadline=$((SECONDS + 120))
    until crictl version >/dev/null 2>&1; do
        if [[ $SECONDS -ge $deadline ]] || ! kill -0 "$runtime_pid" 2>/dev/null; then
            log "$runtime does not answer; the end of its log:"
            tail -n 30 "$results/$runtime.log" >&2
            return 1
        fi
        sleep 0.2
    done
}

# stop_runtime: the daemon ends; what it runs stays.
stop_runtime() {
    [[ -n $runtime_pid ]] || return 0
    kill "$runtime_pid" 2>/dev/null || :
    wait "$runtime_pid" 2>/dev/null || :
    runtime_pid=''
}

# start_huskd: becomes the daemon. Its defaults are those of a node, but for what Debian puts elsewhere.
start_huskd() {
    cat >/etc/husk/huskd.toml <<'TOML'
socket = "/run/husk/cri.sock"
root = "/var/lib/husk"
run = "/run/husk"
registry_config_dir = "/etc/husk/certs.d"
cni_config_dir = "/etc/cni/net.d"
cni_plugin_dirs = ["/usr/lib/cni"]
cgroup_driver = "cgroupfs"
log = "info"
TOML
    exec "$HUSK_PREFIX/bin/huskd" --config /etc/husk/huskd.toml
}

# start_containerd: becomes the daemon, from Debian's package as it was unpacked.
start_containerd() {
    cat >/etc/containerd/config.toml <<'TOML'
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "registry.k8s.io/pause:3.6"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "/etc/containerd/certs.d"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/etc/cni/net.d"
TOML
    PATH=$HUSK_CONTAINERD/usr/bin:$PATH exec containerd --config /etc/containerd/config.toml
}
