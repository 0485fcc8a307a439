#!/usr/bin/env bash
# Verbs shared by the scripts of this folder. Source it, never run it:
#   . "$(dirname "$0")/lib.sh"
# Words:  say | warn | die | progress | need_root | install_packages | packages_of
#         lan_* (names and addresses of the private LAN of one run)
# shellcheck shell=bash

REPO_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
TARGET_DIR_CARGO=${CARGO_TARGET_DIR:-$REPO_DIR/target}
# shellcheck disable=SC2034  # used by the scripts that source this
IMAGE_DIR=$TARGET_DIR_CARGO/image
# The purposes of `scripts/setup`, in the order they are installed.
ALL_PURPOSES=(host-build cross image qemu peers weather browser bench)
# Above this the LAN of one run would leave 10.57.0.0/16.
MAX_PORT_OFFSET=250

say() { printf '%s\n' "$*"; }
warn() { printf '%s\n' "$*" >&2; }
die() { warn "error: $*"; exit 1; }

# progress LABEL COMMAND…: runs a long step; its output goes to a log, a line is printed
# every ten seconds while it works, and the log's end when it fails.
progress() {
    local label=$1 log started pid rc=0
    shift
    mkdir -p "$TARGET_DIR_CARGO/logs"
    log=$TARGET_DIR_CARGO/logs/$(tr -cs 'a-z0-9\n' - <<<"${label,,}").log
    started=$SECONDS
    say "· $label …"
    "$@" >"$log" 2>&1 &
    pid=$!
    while kill -0 "$pid" 2>/dev/null; do
        local tick=0
        while [ $tick -lt 40 ] && kill -0 "$pid" 2>/dev/null; do sleep 0.25; tick=$((tick + 1)); done
        kill -0 "$pid" 2>/dev/null || break
        say "  … $label: $((SECONDS - started)) s, $(tail -n 1 "$log" | tr -d '\r' | cut -c1-80)"
    done
    wait "$pid" || rc=$?
    if [ $rc -ne 0 ]; then
        tail -n 40 "$log" >&2
        die "$label failed after $((SECONDS - started)) s (whole log: $log)"
    fi
    say "✓ $label: $((SECONDS - started)) s"
}

# packages_of PURPOSE: the Debian packages of one purpose, one a line.
packages_of() {
    case $1 in
    host-build)
        printf '%s\n' build-essential ca-certificates curl git openssl shellcheck strace
        # A machine without a Rust toolchain of its own builds with Debian's.
        command -v cargo >/dev/null || printf '%s\n' rustc-web cargo-web rustfmt-web rust-web-clippy
        ;;
    cross)
        printf '%s\n' rustc-web cargo-web libstd-rust-web-dev:arm64 gcc-aarch64-linux-gnu \
            libc6-dev-arm64-cross binutils-aarch64-linux-gnu qemu-user-static file
        ;;
    image)
        printf '%s\n' mmdebstrap arch-test squashfs-tools cryptsetup-bin u-boot-qemu \
            u-boot-tools device-tree-compiler mtools dosfstools gdisk \
            e2fsprogs kmod cpio genimage zstd xz-utils openssl rauc qemu-user-static binutils-aarch64-linux-gnu
        ;;
    qemu) printf '%s\n' qemu-system-arm iproute2 gdisk mtools dosfstools ;;
    peers)
        printf '%s\n' dbus-daemon rauc squashfs-tools systemd squid-openssl tinyproxy microsocks dnsmasq-base iproute2 tcpdump curl python3-venv
        # Debian's npm cannot be installed beside another Node.js that brings its own.
        command -v npm >/dev/null || printf '%s\n' nodejs npm
        ;;
    weather) printf '%s\n' nftables iproute2 tinyproxy-bin faketime ;;
    browser) printf '%s\n' chromium chromium-driver fonts-dejavu-core curl ;;
    bench) printf '%s\n' wrk nginx-light sqlite3 strace python3 curl ;;
    *) die "unknown purpose '$1' (known: ${ALL_PURPOSES[*]})" ;;
    esac
}

# missing_packages PURPOSE…: those that are not installed yet.
missing_packages() {
    local purpose package
    for purpose in "$@"; do packages_of "$purpose"; done | sort -u | while read -r package; do
        dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || say "$package"
    done
}

# need_root PURPOSE…: without root, prints the one line to run as root and stops.
need_root() {
    local missing
    [ "$(id -u)" -ne 0 ] || return 0
    mapfile -t missing < <(missing_packages "$@")
    warn "This needs root (packages, network namespaces). As root, once:"
    if [ ${#missing[@]} -gt 0 ]; then
        warn "  dpkg --add-architecture arm64 && apt-get update && apt-get install --no-install-recommends ${missing[*]}"
    fi
    warn "and then run this again as root: sudo $0"
    exit 77
}

# install_packages PURPOSE…: installs what is missing and says what. Quick when nothing is.
install_packages() {
    local missing common=() qemu=()
    mapfile -t missing < <(missing_packages "$@")
    [ ${#missing[@]} -gt 0 ] || return 0
    need_root "$@"
    say "Installing from Debian for $*: ${missing[*]}"
    dpkg --print-foreign-architectures | grep -qx arm64 || dpkg --add-architecture arm64
    progress "apt update" apt-get update
    local package
    for package in "${missing[@]}"; do
        case $package in qemu-system-arm) qemu+=("$package") ;; *) common+=("$package") ;; esac
    done
    [ ${#common[@]} -eq 0 ] || progress "apt install $*" apt_install "${common[@]}"
    [ ${#qemu[@]} -eq 0 ] || install_qemu "${qemu[@]}"
    # Ours are started with settings of their own; those that the packages start would hold their ports.
    stop_service squid squid-openssl "${missing[@]}"
    stop_service nginx nginx-light "${missing[@]}"
}

# stop_service SERVICE PACKAGE INSTALLED…: ends and disables the service when its package is among those just installed.
stop_service() {
    local service=$1 package=$2
    shift 2
    if [[ " $* " == *" $package "* ]] && [ -d /run/systemd/system ]; then
        systemctl disable --now "$service.service"
    fi
}

apt_install() {
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"
}

# QEMU of the machine's own suite, unless other QEMU packages of a newer suite are already
# there (they refuse the older one): then the same suite's, bookworm-backports.
install_qemu() {
    if dpkg-query -W -f '${Version}\n' 'qemu-utils' 'qemu-system-common' 2>/dev/null | grep -q '~bpo12'; then
        add_backports
        progress "apt install qemu (backports)" apt_install -t bookworm-backports "$@"
    else
        progress "apt install qemu" apt_install "$@"
    fi
}

add_backports() {
    local uri
    # shellcheck disable=SC2016  # $(…) is apt's own format language
    if apt-get indextargets --format '$(CODENAME)' | grep -qx bookworm-backports; then return 0; fi
    # shellcheck disable=SC2016  # $(…) is apt's own format language
    uri=$(apt-get indextargets --format '$(CODENAME) $(REPO_URI)' | sed -n 's/^bookworm //p' | head -n 1)
    [ -n "$uri" ] || die "no apt source for bookworm to take backports from"
    printf 'Types: deb\nURIs: %s\nSuites: bookworm-backports\nComponents: main\nSigned-By: %s\n' \
        "$uri" /usr/share/keyrings/debian-archive-keyring.gpg >/etc/apt/sources.list.d/comptoir-backports.sources
    progress "apt update (backports)" apt-get update
}

# The private LAN of run N (0…MAX_PORT_OFFSET): a network namespace with everything in it.
lan_check() {
    if ! [[ $1 =~ ^[0-9]+$ ]] || [ "$1" -gt "$MAX_PORT_OFFSET" ]; then
        die "port offset must be 0 to $MAX_PORT_OFFSET, not '$1'"
    fi
}
lan_netns() { say "comptoir-$1"; }
lan_net() { say "10.57.$1"; }
lan_box() { say "10.57.$1.2"; }
lan_peers() { say "10.57.$1.1"; }
lan_host() { say "10.57.$1.254"; }
lan_device() { say "10.57.$1.$((10 + $2))"; }
