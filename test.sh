#!/bin/sh
# All checks and tests of dorc; needs a shell, Rust and git.
#
#   ./test.sh               everything
#   ./test.sh lint test     some steps: prepare, lint, build, test, host
#
# As root on Debian it first installs what the tests on real systemd need, and starts none of it. Elsewhere it says
# what is skipped. With CI set to anything, nothing may be skipped.
set -eu
cd "$(dirname "$0")"

# program:package, as the test hosts look for them.
NEEDED='cc:build-essential systemd-nspawn:systemd-container dbus-daemon:dbus ip:iproute2 pgrep:procps curl:curl
    python3:python3 node:nodejs javac:default-jdk-headless caddy:caddy redis-server:redis-server nginx:nginx rsync:rsync
    wrk:wrk sshd:openssh-server'

missing_packages() {
    for pair in $NEEDED; do
        (PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin command -v "${pair%:*}" >/dev/null) ||
            printf '%s ' "${pair#*:}"
    done
    python3 -c 'import prometheus_client' 2>/dev/null || echo python3-prometheus-client
    # Without it, the users that systemd makes up for the services have no names. Its file tells that it is there.
    ls /lib/*/libnss_systemd.so.2 >/dev/null 2>&1 || echo libnss-systemd
}

prepare() {
    packages=$(missing_packages)
    if [ "$(id -u)" -ne 0 ]; then
        skip 'the tests on real systemd need root'
    elif [ -z "$packages" ]; then
        return
    elif ! command -v apt-get >/dev/null; then
        skip "without apt-get, these packages are yours to install: $packages"
    else
        echo "installing $packages"
        # shellcheck disable=SC2086 # a list
        install_packages $packages || skip "not all of these could be installed: $packages"
    fi
}

install_packages() {
    # Debian asks this file whether a service may be started; 101 is no. One that is there already stays.
    policy=/usr/sbin/policy-rc.d
    if [ -e "$policy" ]; then
        policy=
    else
        trap 'rm -f "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    result=0
    apt-get update -qq || result=$?
    DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends "$@" || result=$?
    [ -z "$policy" ] || rm -f "$policy"
    trap - EXIT
    # Installed for tests, not to come up at the next boot of this machine.
    for package in "$@"; do
        case $package in
            caddy | redis-server | nginx) systemctl disable --quiet "$package" || true ;;
            openssh-server) systemctl disable --quiet ssh || true ;;
        esac
    done
    return "$result"
}

skip() {
    echo "skipped: $1" >&2
    [ -z "${CI:-}" ] || exit 1
}

lint() {
    cargo fmt --check
    cargo clippy --locked --all-targets -- --deny warnings
}

build() {
    cargo build --locked --bins --examples
}

# Unit, integration, contract, simulation, tidiness and test hosts: whatever is there.
tests() {
    build
    cargo test --locked --no-fail-fast
}

host() {
    build
    # The host tests run these, too, inside a test host.
    cargo test --locked --test contract --no-run
    cargo test --locked --test host
}

[ $# -gt 0 ] || set -- prepare lint test
for step; do
    case $step in
        prepare | lint | build | host) "$step" ;;
        # `test` itself is the shell's own.
        test) tests ;;
        *) echo "no such step: $step; there are prepare, lint, build, test, host" >&2; exit 2 ;;
    esac
done
