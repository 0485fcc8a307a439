# The private LAN of one run: a network namespace with a bridge, the box's tap, a DHCP server,
# the proxy, and one leg to this machine. Nothing in it reaches any other network: there is
# no route out. Sourced by scripts/vm.
# shellcheck shell=bash

# Addresses for simulated devices that every LAN gets: 10.57.N.11 … 14.
LAN_DEVICES=4
# What the proxy maps to the emulators: the contract's hosts (design: the network contract).
CONTRACT_HOSTS=(api.server.commerce-hub.io e-serversync-ns.servicebus.windows.net
    simplementedata.blob.core.windows.net api.logmatic.io koostodesapp-ns.servicebus.windows.net)

run_dir() { say "/run/comptoir-$1"; }
in_lan() { local n=$1; shift; ip netns exec "$(lan_netns "$n")" "$@"; }
box_mac() { printf '52:54:00:57:%02x:02' "$1"; }

lan_up() {
    local n=$1 ns i
    ns=$(lan_netns "$n")
    ! ip netns pids "$ns" >/dev/null 2>&1 || die "LAN $n is up already (scripts/vm down $n ends it)"
    mkdir -p "$(run_dir "$n")"
    ip netns add "$ns"
    in_lan "$n" ip link set lo up
    in_lan "$n" ip link add br0 type bridge
    in_lan "$n" ip addr add "$(lan_peers "$n")/24" dev br0
    for i in $(seq "$LAN_DEVICES"); do in_lan "$n" ip addr add "$(lan_device "$n" "$i")/24" dev br0; done
    in_lan "$n" ip tuntap add dev tap0 mode tap
    ip link add "ct$n-host" type veth peer name host0 netns "$ns"
    local link
    for link in tap0 host0; do in_lan "$n" ip link set "$link" master br0 up; done
    in_lan "$n" ip link set br0 up
    ip addr add "$(lan_host "$n")/24" dev "ct$n-host"
    ip link set "ct$n-host" up
    in_lan "$n" dnsmasq --conf-file=/dev/null --port=0 --interface=br0 --bind-interfaces --leasefile-ro \
        --dhcp-range="$(lan_net "$n").2,$(lan_net "$n").9,12h" --dhcp-host="$(box_mac "$n"),$(lan_box "$n")" \
        --dhcp-option=3 --dhcp-option=6 --dhcp-authoritative --user=root \
        --pid-file="$(run_dir "$n")/dnsmasq.pid" --log-facility="$(run_dir "$n")/dnsmasq.log"
}

# The proxy at :3128 of the peers' address: CONNECT to port 443 of the contract's hosts, all
# of which it finds at the emulators; every other name is refused.
proxy_up() {
    local n=$1 dir host
    dir=$(run_dir "$n")/proxy
    mkdir -p "$dir"
    for host in "${CONTRACT_HOSTS[@]}"; do say "$(lan_peers "$n") $host"; done >"$dir/hosts"
    cat >"$dir/squid.conf" <<CONF
http_port $(lan_peers "$n"):3128
hosts_file $dir/hosts
dns_nameservers 127.0.0.1
dns_timeout 2 seconds
acl contract dstdomain ${CONTRACT_HOSTS[*]}
acl https port 443
http_access allow CONNECT contract https
http_access deny all
cache deny all
cache_mem 8 MB
memory_pools off
max_filedescriptors 4096
shutdown_lifetime 1 seconds
pid_filename $dir/squid.pid
access_log stdio:$dir/access.log
cache_log $dir/cache.log
coredump_dir $dir
visible_hostname proxy
CONF
    chown -R proxy "$dir"
    # A name of its own: squids of one name share memory.
    in_lan "$n" squid -n "lan$n" -f "$dir/squid.conf" || die "squid does not start ($dir/cache.log)"
}

proxy_down() {
    local n=$1 dir
    dir=$(run_dir "$n")/proxy
    [ -e "$dir/squid.conf" ] || return 0
    stop_pid "$dir/squid.pid"
}

stop_pid() {
    local file=$1 signal=${2:-TERM} pid tick
    pid=$(cat "$file" 2>/dev/null) || return 0
    kill "-$signal" "$pid" 2>/dev/null || true
    for tick in $(seq 50); do
        kill -0 "$pid" 2>/dev/null || break
        [ "$tick" -lt 40 ] || kill -KILL "$pid" 2>/dev/null || true
        sleep 0.1
    done
    rm -f "$file"
}

# Ends everything of a LAN: its processes are those of its namespace, and no others.
lan_down() {
    local n=$1 ns pids
    ns=$(lan_netns "$n")
    if ip netns pids "$ns" >/dev/null 2>&1; then
        proxy_down "$n"
        mapfile -t pids < <(ip netns pids "$ns")
        [ ${#pids[@]} -eq 0 ] || kill "${pids[@]}" 2>/dev/null || true
        for _ in $(seq 30); do [ -n "$(ip netns pids "$ns")" ] || break; sleep 0.1; done
        mapfile -t pids < <(ip netns pids "$ns")
        [ ${#pids[@]} -eq 0 ] || kill -KILL "${pids[@]}" 2>/dev/null || true
        ip netns del "$ns"
    fi
    ip link del "ct$n-host" 2>/dev/null || true
    rm -rf "$(run_dir "$n")"
}
