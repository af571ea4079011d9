# Sourced by the demo scripts: a network of namespaces on this machine, and what goes wrong in it.
#
#   client ---[rc] router [ra]--- app         pages, an API, a database, backups
#                    |    [ru]--- uploads
#                    |    [rt]--- telemetry
#                  [span]
#                    |
#                   tap           has no address; who listens here hears what the mirror port sends
#
# The mirror port copies the client's link in both directions, as an operator would set it up: what comes in there
# (ingress) is what the client sent, before the router judges it; what goes out there (egress) is what the client
# gets, whether a server sent it or the router made it. So a SYN or a large segment that the router loses is seen
# once, going in; a reset made by the router once, going out; and a packet that is only passed on is not seen a
# second time on the servers' links, which are not copied.
#
# Namespaces are entered with nsenter and not with "ip netns exec" or "ip -n": those also change mounts, which
# fails where the root directory is no mount point (a chroot).

prefix=referee-demo-$$
spaces=(client router app uploads telemetry tap)
netns_was_there=$([ -d /run/netns ] && echo yes || true)

network_needs() {
    need_ip "makes the network of the demo: namespaces and the links between them"
    need_nftables "makes its router misbehave, and its mirror port"
    need_ethtool "has the links carry packets as a wire does"
}

# within SPACE COMMAND...
within() {
    local space=$1
    shift
    nsenter --net="/run/netns/$prefix-$space" "$@"
}

# setting SPACE NAME VALUE: what sysctl would do; procps is not everywhere.
setting() {
    # shellcheck disable=SC2016 # expanded inside
    within "$1" sh -c 'echo "$2" >"/proc/sys/net/$1"' sh "$2" "$3"
}

# Prints what this machine lacks for the network; nothing if it lacks nothing.
network_missing() {
    local folder why=
    folder=$(mktemp -d)
    if ! network_up 2>"$folder/errors"; then
        why=$(grep -v '^ *^*$' "$folder/errors" | sed -n 1p)
        why=${why:-making one failed}
    fi
    network_down
    rm -r "$folder"
    printf '%s' "$why"
}

network_up() {
    local space
    for space in "${spaces[@]}"; do
        ip netns add "$prefix-$space" || return
        # Nothing but the demo's own traffic: no router solicitations, no neighbour discovery.
        if [ -e /proc/sys/net/ipv6 ]; then
            setting "$space" ipv6/conf/all/disable_ipv6 1 || return
            setting "$space" ipv6/conf/default/disable_ipv6 1 || return
        fi
    done
    link client rc 10.20.0 && link app ra 10.50.1 && link uploads ru 10.50.2 && link telemetry rt 10.50.3 || return
    setting router ipv4/ip_forward 1 || return
    mirror && troubles
}

# link SPACE PORT NETWORK: a link to the router, which is .1 of its network.
link() {
    within router ip link add name "$2" type veth peer name eth0 netns "$prefix-$1" &&
        within router ip address add "$3.1/24" dev "$2" &&
        within router ip link set "$2" up &&
        within "$1" ip address add "$3.10/24" dev eth0 &&
        wirelike router "$2" && wirelike "$1" eth0 &&
        within "$1" ip link set eth0 up &&
        within "$1" ip route add default via "$3.1"
}

# wirelike SPACE PORT: between namespaces Linux hands on data that is not cut into packets yet, with unfinished
# checksums. No wire carries that, and a receiver that has no room for 64 KB at once loses them all at once.
wirelike() {
    within "$1" ethtool -K "$2" tx off >/dev/null
}

mirror() {
    # One queue: veth would spread the packets of a connection over several.
    within router ip link add name span numrxqueues 1 numtxqueues 1 type veth \
        peer name tap numrxqueues 1 numtxqueues 1 netns "$prefix-tap" || return
    wirelike router span || return
    within tap ip link set tap up && within router ip link set span up || return
    within router nft -f - <<'NFT'
table netdev mirror {
    chain from_client {
        type filter hook ingress device rc priority 0
        dup to span
    }
    chain to_client {
        type filter hook egress device rc priority 0
        dup to span
    }
}
NFT
}

# The router's and the servers' ways to misbehave. What lies in a chain of its own begins with its act.
troubles() {
    within router nft -f - <<'NFT' || return
table inet router {
    counter syns_lost { }
    counter resets_made { }
    counter icmp_kept_back { }
    set connections_lost {
        typeof ip saddr . tcp sport . tcp sequence
        flags dynamic
        size 4096
    }
    chain full_table {
    }
    chain forward {
        type filter hook forward priority filter
        jump full_table
        meta l4proto tcp ct state invalid counter name resets_made reject with tcp reset
    }
    chain output {
        type filter hook output priority filter
        icmp type destination-unreachable icmp code frag-needed counter name icmp_kept_back drop
    }
}
NFT
    # A packet of a connection that is not in the table is invalid, also if it looks like one.
    setting router netfilter/nf_conntrack_tcp_loose 0 || return
    setting router netfilter/nf_conntrack_tcp_timeout_established 11 || return
    within telemetry nft -f - <<'NFT'
table inet host {
    counter resets_sent { }
    chain dying {
    }
    chain output {
        type filter hook output priority filter
        jump dying
        tcp flags rst counter name resets_sent
    }
}
NFT
}

# 1 in 12 connections to the API never gets through, however often its SYN is repeated: so it is with a full table
# that makes room only now and then. A port may come back with another connection; its sequence number tells.
lose_connections() {
    within router nft add rule inet router full_table 'tcp flags & (fin|syn|rst|ack) == syn tcp dport 8443' \
        'jhash ip saddr . tcp sport mod 12 == 0 add @connections_lost { ip saddr . tcp sport . tcp sequence }' \
        'counter name syns_lost drop'
}

narrow_link() {
    within router ip link set ru mtu 1400
}

# crash PID: the process dies, and none of its connections can say so; afterwards its kernel knows them no more.
# A host that loses power would do the same, but takes longer to come back. Late FINs are held back until the end:
# a host that was away would not have them.
crash() {
    within telemetry nft add rule inet host dying 'tcp flags & (fin|rst) != 0 drop'
    kill -KILL "$1"
    # bash would tell of the death.
    wait "$1" 2>/dev/null || true
    within telemetry nft "flush chain inet host dying; add rule inet host dying tcp flags fin drop"
}

recovered() {
    within telemetry nft flush chain inet host dying
}

# counted SPACE TABLE COUNTER: packets so far.
counted() {
    within "$1" nft list counter inet "$2" "$3" | grep -o 'packets [0-9]*' | cut -d' ' -f2
}

connections_lost() {
    within router nft list set inet router connections_lost | grep -o '[0-9.]\+ \. [0-9]\+ \. ' | wc -l
}

# Safe to call at any time, also twice.
network_down() {
    local space
    for space in "${spaces[@]}"; do
        [ ! -e "/run/netns/$prefix-$space" ] || ip netns del "$prefix-$space" || true
    done
    # ip makes this folder a mount of its own; where it was not there before, it goes again.
    if [ -z "$netns_was_there" ] && [ -d /run/netns ] && [ -z "$(ls /run/netns)" ]; then
        { ! mountpoint -q /run/netns || umount /run/netns; } && rmdir /run/netns || true
    fi
}
