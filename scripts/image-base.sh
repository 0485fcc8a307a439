# The base system of the bench image: Debian's arm64 packages, unpacked without running
# anything foreign, cached by a hash of what decides its content. Sourced by scripts/image.
#   base_dir     where it is (target/image/base-<hash>): tree/ kernel/ u-boot.bin Image packages.txt
#   make_base    makes it unless it is there
# shellcheck shell=bash

BASE_SUITE=trixie
BASE_PACKAGES=(base-files base-passwd busybox dash dbus dmsetup e2fsprogs fdisk kmod libc-bin
    libubootenv-tool mount rauc rauc-service systemd systemd-sysv udev util-linux)
# What a box has no use for. The rest of the pruning is `keep_libraries`.
BASE_PRUNED=(boot etc/apt etc/cron.d etc/default etc/dpkg etc/init.d 'etc/rc*.d' etc/ssh etc/update-motd.d etc/xdg
    etc/gss etc/debconf.conf etc/e2scrub.conf etc/profile.d etc/skel usr/games usr/include usr/local usr/src
    usr/lib/apt usr/lib/dpkg 'usr/lib/aarch64-linux-gnu/gconv' usr/lib/init usr/lib/lsb usr/lib/mime usr/lib/pcrlock.d
    usr/lib/systemd/catalog usr/lib/systemd/user 'usr/lib/systemd/user-*' usr/lib/systemd/ssh_config.d
    'usr/lib/systemd/*-tpm2*' usr/lib/systemd/systemd-pcrlock usr/lib/systemd/systemd-storagetm
    usr/lib/udev/hwdb.d usr/lib/udev/hwdb.bin usr/lib/kernel usr/lib/valgrind usr/lib/terminfo
    usr/lib/firmware usr/lib/modules usr/lib/locale usr/share/bash-completion usr/share/bug usr/share/debconf
    usr/share/doc usr/share/doc-base usr/share/gcc usr/share/gdb usr/share/info usr/share/initramfs-tools
    usr/share/lintian usr/share/locale usr/share/man usr/share/menu usr/share/perl5 usr/share/pixmaps
    usr/share/polkit-1 usr/share/zoneinfo usr/share/zsh usr/share/common-licenses usr/share/libc-bin
    usr/share/base-files usr/share/glib-2.0 usr/share/gettext usr/share/keyrings var/lib/dpkg var/cache var/lib/apt)

base_dir() {
    local key
    key=$(cat "$REPO_DIR/scripts/image-base.sh" <(date +%G-%V) | sha256sum | cut -c1-12)
    say "$IMAGE_DIR/base-$key"
}

make_base() {
    local dir=$1
    [ ! -e "$dir/complete" ] || return 0
    rm -rf "$dir"
    mkdir -p "$dir/debs"
    unpack_packages "$dir"
    unpack_kernel "$dir"
    write_users "$dir/tree"
    prune "$dir/tree"
    link_applets "$dir/tree"
    rm -rf "$dir/debs" "$dir/unpacked"
    touch "$dir/complete"
}

unpack_packages() {
    local dir=$1
    cat >"$dir/hook" <<HOOK
#!/bin/sh
# Kernel and U-Boot are fetched by the same apt, but kept out of the tree.
set -eu
cd "$dir/debs"
export APT_CONFIG="\$MMDEBSTRAP_APT_CONFIG"
kernel=\$(apt-cache depends --important linux-image-arm64:arm64 | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
apt-get -o APT::Sandbox::User=root download "\$kernel" u-boot-qemu
HOOK
    chmod +x "$dir/hook"
    mmdebstrap --variant=extract --mode=root --architectures=arm64 --format=directory \
        --aptopt='APT::Install-Recommends "false"' --include="$(IFS=,; echo "${BASE_PACKAGES[*]}")" \
        --extract-hook="$dir/hook" "$BASE_SUITE" "$dir/tree"
    rm "$dir/hook"
}

unpack_kernel() {
    local dir=$1 deb
    for deb in "$dir"/debs/*.deb; do
        dpkg -x "$deb" "$dir/unpacked"
        basename "$deb" >>"$dir/packages.txt"
    done
    cp "$dir"/unpacked/boot/vmlinuz-* "$dir/Image"
    cp "$dir/unpacked/usr/lib/u-boot/qemu_arm64/u-boot.bin" "$dir/u-boot.bin"
    mkdir -p "$dir/kernel/usr"
    mv "$dir/unpacked/usr/lib" "$dir/kernel/usr/lib"
    ln -s usr/lib "$dir/kernel/lib"
    depmod -b "$dir/kernel" "$(basename "$dir"/kernel/usr/lib/modules/*)"
}

# The packages' own users, as their maintainer scripts would add them; ours come by
# sysusers when the image is assembled.
write_users() {
    local tree=$1
    cp "$tree/usr/share/base-passwd/passwd.master" "$tree/etc/passwd"
    cp "$tree/usr/share/base-passwd/group.master" "$tree/etc/group"
    sed -i 's|:/bin/bash$|:/usr/sbin/nologin|' "$tree/etc/passwd"
    printf 'root:!*:19700::::::\n' >"$tree/etc/shadow"
    chmod 640 "$tree/etc/shadow"
}

prune() {
    local tree=$1 path
    # shellcheck disable=SC2086  # the list has patterns
    (cd "$tree" && for path in "${BASE_PRUNED[@]}"; do rm -rf -- $path; done)
    rm -f "$tree"/usr/bin/{bash,perl*,localedef,dpkg*,apt*,deb*} 2>/dev/null || true
    find "$tree" -xdev -type f -perm /6000 ! -name 'dbus-daemon-launch-helper' -exec chmod a-s {} +
}

# busybox stands in for every small tool that no package brought: as in Buildroot's base.
link_applets() {
    local tree=$1 applet
    qemu-aarch64-static -L "$tree" "$tree/usr/bin/busybox" --list | while read -r applet; do
        case $applet in init | reboot | halt | poweroff | mount | umount) continue ;; esac
        [ -e "$tree/usr/bin/$applet" ] || [ -e "$tree/usr/sbin/$applet" ] || ln -s busybox "$tree/usr/bin/$applet"
    done
}
