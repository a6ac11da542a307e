#!/bin/busybox sh
# What runs in the virtual machine, as its first and only process: starts a server, opens a connection, starts the agent,
# makes requests over that connection and over new ones, stops the agent, and tells what came of it. Then the same with
# TLS in the kernel, twice.
#
# Progress goes to the console (first serial port), as lines of `vm: …`; results go to the second one, where the kernel
# writes nothing in between, as sections that vm/report.rs reads.

/bin/busybox mkdir -p /proc /sys /dev /tmp
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
/bin/busybox --install -s /bin
export PATH=/bin NO_COLOR=1
mount -t tracefs tracefs /sys/kernel/tracing
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up

stty -F /dev/ttyS1 raw
exec 3>/dev/ttyS1

# Requests of each kind.
KEPT=20
NEW=20
OLD=5
# With TLS in the kernel: of each kind, and where only one direction is there.
TLS=5
HALF=5
# Where nginx.conf listens.
V4=127.0.0.1:8080
V6='[::1]:8080'
# Where nginx-proxy.conf listens, which asks by TLS.
PROXY=http://127.0.0.1:8081
PROXY_HALF=http://127.0.0.1:8082

say() { echo "vm: $*"; }

# section NAME VALUE [FILE]: one section of the results.
section() {
    echo "=== $1 $2" >&3
    if [ -n "$3" ]; then cat "$3" >&3; fi
}

# Waits until a command succeeds, for at most $1 seconds.
wait_for() {
    left=$(($1 * 5))
    shift
    until "$@"; do
        left=$((left - 1))
        if [ "$left" -le 0 ]; then say "gave up waiting for: $*"; return 1; fi
        sleep 0.2
    done
}

answers() { grep -c 'HTTP/1.1 200' /tmp/old; }
has_answers() { [ "$(answers)" -ge "$1" ]; }
ask_old() { printf 'GET /old/%s HTTP/1.1\r\nHost: vm\r\n\r\n' "$1" >&4; }
# One request, one connection each; prints the statuses.
ask_new() { curl -s -o /dev/null -w '%{http_code}\n' "$1"; }
# Starts the agent with these flags and those of the command; it writes to /tmp/$1-spans and /tmp/$1-log.
start_agent() {
    name=$1
    shift
    set -- run --spans "/tmp/$name-spans" "$@"
    while IFS= read -r argument; do set -- "$@" "$argument"; done </etc/arguments
    remora "$@" >"/tmp/$name-log" 2>&1 &
    agent=$!
    wait_for 200 agent_is_up
}
# Stops it, and tells of it in the sections $2agent and $2spans.
stop_agent() {
    # Long enough for what is under way to arrive; the rest is up to the agent's own draining.
    sleep 2
    kill -TERM "$agent" 2>/dev/null
    wait "$agent"
    section "$2agent" "$?" "/tmp/$1-log"
    section "$2spans" '' "/tmp/$1-spans"
}
agent_is_up() { ! kill -0 "$agent" 2>/dev/null || [ "$(curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:9464/readyz)" = 200 ]; }

section kernel "$(uname -r)"

say 'remora check'
remora check --json >/tmp/check 2>/tmp/check.log
status=$?
echo >>/tmp/check
section check "$status" /tmp/check
section check-log '' /tmp/check.log

say 'starting nginx'
nginx -e stderr -c /etc/nginx.conf || say 'nginx did not start'
mkfifo /tmp/to-old
: >/tmp/old
nc 127.0.0.1 8080 </tmp/to-old >/tmp/old &
exec 4>/tmp/to-old
ask_old 0
wait_for 10 has_answers 1

say 'starting the agent'
start_agent plain --port 8080

say 'making requests'
{
    # curl keeps the connection between the addresses of one command.
    curl -s -o /dev/null -w '%{http_code}\n' "http://$V4/kept/[1-$KEPT]"
    i=0
    while [ "$i" -lt "$NEW" ]; do
        # In turn: an answer out of memory, one by sendfile, and both over IPv6.
        case $((i % 4)) in
        0) ask_new "http://$V4/new/$i" ;;
        1) ask_new "http://$V4/file" ;;
        2) ask_new "http://$V6/new/$i" ;;
        3) ask_new "http://$V6/file" ;;
        esac
        i=$((i + 1))
    done
} >/tmp/statuses
i=0
while [ "$i" -lt "$OLD" ]; do
    i=$((i + 1))
    ask_old "$i"
    wait_for 10 has_answers $((i + 1)) || break
done
section asked "$((KEPT + NEW + OLD))"
section answered "$(($(grep -c '^200$' /tmp/statuses) + $(answers) - 1))"

# Requests that came with a trace context, which only the agent can have put there.
section contexts "$(grep -c '^00-' /tmp/contexts)"

say 'stopping the agent'
stop_agent plain ''
exec 4>&-

# How often the kernel was given keys for sending (Tx) and receiving (Rx), by a software implementation.
keys() { sed -n "s/^Tls$1Sw[[:space:]]*//p" /proc/net/tls_stat; }
# Requests, one connection each but those to one address with a range; prints status and size of each.
ask() { curl -s -o /dev/null -w '%{http_code} %{size_download}\n' "$1"; }
proxy_is_up() { [ "$(ask $PROXY/old/)" = '200 5' ]; }

# ktls NAME FLAGS: requests over TLS in the kernel, followed by an agent with these flags.
ktls() {
    name=$1
    shift
    say "TLS in the kernel, seen by $name"
    section ktls "$name"
    : >/tmp/contexts-tls
    nginx -e stderr -c /etc/nginx-proxy.conf || say 'the proxy did not start'
    # Leaves a connection that is older than the agent.
    wait_for 10 proxy_is_up
    start_agent "$name" --port 8443 --port 8444 --port 8445 "$@"
    sends=$(keys Tx) receives=$(keys Rx)
    asked=$((4 * TLS))
    {
        ask "$PROXY/old/[1-$TLS]"
        ask "$PROXY/kept/[1-$TLS]"
        i=0
        while [ "$i" -lt "$TLS" ]; do
            ask "$PROXY/new/$i"
            ask "$PROXY/file"
            i=$((i + 1))
        done
    } >/tmp/answers
    # With fields put into requests the kernel takes no keys for a socket that has sent nothing (docs/LIMITS.md).
    if ! grep -q '^headers$' /etc/arguments; then
        asked=$((asked + TLS))
        own-keys client 8445 "$TLS" >>/tmp/answers
    fi
    section ktls-asked "$asked" /tmp/answers
    section ktls-keys "$(($(keys Tx) - sends)) $(($(keys Rx) - receives))"
    receives=$(keys Rx)
    ask "$PROXY_HALF/kept/[1-$HALF]" >/tmp/answers
    section ktls-half "$HALF" /tmp/answers
    section ktls-half-keys "$(($(keys Rx) - receives))"
    curl -s http://127.0.0.1:9464/metrics | grep -F 'remora_kernel_drops_total{' >/tmp/drops
    section ktls-drops '' /tmp/drops
    section ktls-contexts "$(grep -c '^00-' /tmp/contexts-tls)"
    stop_agent "$name" ktls-
    kill "$(cat /tmp/nginx-proxy.pid)"
    sleep 0.5
}

for module in "/lib/modules/$(uname -r)"/*.ko; do insmod "$module" || say "cannot load $module"; done
nginx -e stderr -c /etc/nginx-tls.conf || say 'nginx with TLS did not start'
own-keys server 8445 2>/dev/console &
ktls functions
ktls calls --tls=false

# What the kernel complains of; not of a slow machine.
dmesg | grep -E 'BUG:|WARNING:|Oops|general protection' | grep -v 'soft lockup' >/tmp/complaints
section complaints '' /tmp/complaints
section end ''
say 'done'
sync
poweroff -f
