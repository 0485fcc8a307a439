#!/usr/bin/env bash
# Buildroot's post-build hook, used by the bench image as well: turns a target tree with our
# overlay and binary into the read-only system of a box.
#   $1 or TARGET_DIR   the tree; the rest: facts.sh
set -euo pipefail

COMMON_DIR=$(cd "$(dirname "$0")" && pwd)
. "$COMMON_DIR/render.sh"
. "$COMMON_DIR/facts.sh"
TARGET_DIR=${1:-${TARGET_DIR:?}}
UNIT_DIR=$TARGET_DIR/usr/lib/systemd/system

# Statically wanted units that a box without login, swap, TPM and writable root has no use for.
UNWANTED_UNITS=(
    getty.target getty-static.service console-getty.service serial-getty@.service getty@.service
    container-getty@.service autovt@.service debug-shell.service
    systemd-logind.service systemd-user-sessions.service systemd-ask-password-wall.path
    systemd-ask-password-console.path systemd-firstboot.service systemd-hwdb-update.service
    systemd-journal-catalog-update.service systemd-machine-id-commit.service systemd-sysusers.service
    systemd-update-done.service systemd-update-utmp.service ldconfig.service systemd-binfmt.service
    proc-sys-fs-binfmt_misc.automount proc-sys-fs-binfmt_misc.mount systemd-pcrmachine.service
    systemd-pcrphase.service systemd-pcrphase-sysinit.service systemd-tpm2-setup.service
    systemd-tpm2-setup-early.service systemd-hibernate-clear.service systemd-bsod.service
    systemd-battery-check.service systemd-random-seed.service systemd-journal-flush.service
    systemd-modules-load.service run-lock.mount kmod-static-nodes.service
    dev-hugepages.mount dev-mqueue.mount sys-fs-fuse-connections.mount sys-kernel-config.mount
    sys-kernel-debug.mount sys-kernel-tracing.mount systemd-initctl.socket systemd-creds.socket
    systemd-hostnamed.socket systemd-pcrextend.socket systemd-pcrlock.socket systemd-sysext.socket
    systemd-networkd-wait-online.service systemd-networkd-persistent-storage.service
)
# They prepare a writable /etc, /home, /srv and logins.
UNWANTED_TMPFILES=(20-systemd-shell-extra 20-systemd-ssh-generator 20-systemd-stub credstore debian etc home legacy
    libselinux1 provision systemd-nologin x11)
# The debug generator stays: it is what reads units from the machine's own credentials.
KEPT_GENERATORS=(systemd-debug-generator)

strip_units() {
    local unit link
    for unit in "${UNWANTED_UNITS[@]}"; do
        for link in "$UNIT_DIR"/*.wants/"$unit" "$TARGET_DIR"/etc/systemd/system/*.wants/"$unit"; do
            rm -f "$link"
        done
        case $unit in *getty* | debug-shell.service | systemd-logind.service) rm -f "$UNIT_DIR/$unit" ;; esac
    done
    rm -f "$UNIT_DIR"/dbus-org.freedesktop.login1.service
    local generator name
    for name in "${UNWANTED_TMPFILES[@]}"; do rm -f "$TARGET_DIR/usr/lib/tmpfiles.d/$name.conf"; done
    for generator in "$TARGET_DIR"/usr/lib/systemd/system-generators/*; do
        [[ " ${KEPT_GENERATORS[*]} " == *" ${generator##*/} "* ]] || rm -f "$generator"
    done
    ln -sfn multi-user.target "$UNIT_DIR/default.target"
    rm -f "$TARGET_DIR"/etc/systemd/system/default.target
}

render_etc() {
    mkdir -p "$TARGET_DIR/etc/rauc"
    render "$COMMON_DIR/rauc-system.conf.in" COMPATIBLE PART_PREFIX PART_ROOT_A PART_ROOT_B PART_BOOT_A PART_BOOT_B \
        >"$TARGET_DIR/etc/rauc/system.conf"
    install -m 644 "$COMPTOIR_SIGNING_DIR/ca.cert.pem" "$TARGET_DIR/etc/rauc/keyring.pem"
    printf '# Boot state, shared with the boot script: device, offset, size.\n%s 0x0 0x%x\n' \
        "$PART_PREFIX$PART_ENV" "$UBOOT_ENV_BYTES" >"$TARGET_DIR/etc/fw_env.config"
    printf 'NAME="Comptoir"\nID=comptoir\nVERSION_ID=%s\nPRETTY_NAME="Comptoir %s"\nIMAGE_ID=%s\nIMAGE_VERSION=%s\n' \
        "$COMPTOIR_VERSION" "$COMPTOIR_VERSION" "$BOARD" "$COMPTOIR_VERSION" >"$TARGET_DIR/usr/lib/os-release"
    ln -sfn ../usr/lib/os-release "$TARGET_DIR/etc/os-release"
    echo comptoir >"$TARGET_DIR/etc/hostname"
    printf '127.0.0.1 localhost comptoir\n' >"$TARGET_DIR/etc/hosts"
    ln -sfn ../run/resolv.conf "$TARGET_DIR/etc/resolv.conf"
    printf 'passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nservices: files\nprotocols: files\n' >"$TARGET_DIR/etc/nsswitch.conf"
    ln -sfn /proc/self/mounts "$TARGET_DIR/etc/mtab"
    : >"$TARGET_DIR/etc/fstab"
    # Empty, so that systemd puts a fresh one over it in memory.
    rm -f "$TARGET_DIR/etc/machine-id" "$TARGET_DIR/var/lib/dbus/machine-id"
    install -m 444 /dev/null "$TARGET_DIR/etc/machine-id"
}

# Directories that are mounted over, and the clock's floor for a box without a clock chip.
prepare_tree() {
    mkdir -p "$TARGET_DIR"/{data,dev,proc,run,sys,tmp,var}
    rm -rf "${TARGET_DIR:?}"/{boot,home,media,mnt,opt,srv}
    rm -rf "${TARGET_DIR:?}"/{run,tmp,var}/*
    touch "$TARGET_DIR/usr/lib/clock-epoch"
    touch -d "@$SOURCE_DATE_EPOCH" "$TARGET_DIR/usr/lib/clock-epoch"
}

main() {
    facts "${2:-}"
    strip_units
    render_etc
    prepare_tree
}
main "$@"
