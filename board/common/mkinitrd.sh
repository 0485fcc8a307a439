#!/usr/bin/env bash
# mkinitrd.sh TARGET_DIR BOARD_DIR VERITY_FILE KERNEL_RELEASE OUT: packs the initrd from the
# target's own binaries, so that it is the same in Buildroot's and in the bench image.
# Modules come from MODULES_DIR (default TARGET_DIR/usr/lib/modules); a kernel that has
# everything built in needs none.
set -euo pipefail

COMMON_DIR=$(cd "$(dirname "$0")" && pwd)
# Buildroot's own toolchain, else Debian's.
READELF=$(compgen -G "${HOST_DIR:-/nowhere}/bin/aarch64-*-readelf" | head -n 1 || true)
READELF=${READELF:-aarch64-linux-gnu-readelf}
PROGRAMS=(busybox dmsetup sfdisk e2fsck mke2fs resize2fs)
APPLETS=(sh cat cut dd echo mkdir modprobe mount reboot sed sleep switch_root tr wc '[')
LIB_DIRS=(usr/lib usr/lib/aarch64-linux-gnu usr/lib64)

# Copies a program or library of the target with all the libraries it names.
add_elf() {
    local file=$1 to=$2 lib dir
    [ ! -e "$ROOT/$to" ] || return 0
    install -D -m 755 "$file" "$ROOT/$to"
    for lib in $("$READELF" -d "$file" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p') $(interpreter "$file"); do
        for dir in "${LIB_DIRS[@]}"; do
            if [ -e "$TARGET/$dir/$(basename "$lib")" ]; then
                add_elf "$TARGET/$dir/$(basename "$lib")" "usr/lib/$(basename "$lib")"
                break
            fi
        done
    done
}

interpreter() { "$READELF" -l "$1" | sed -n 's/.*interpreter: \(.*\)\]/\1/p'; }

add_programs() {
    local program dir
    for program in "${PROGRAMS[@]}"; do
        for dir in usr/bin usr/sbin; do
            if [ -e "$TARGET/$dir/$program" ]; then add_elf "$TARGET/$dir/$program" "usr/bin/$program"; continue 2; fi
        done
        echo "mkinitrd: the target has no $program" >&2
        return 1
    done
    for program in "${APPLETS[@]}"; do ln -s busybox "$ROOT/usr/bin/$program"; done
}

add_modules() {
    local from=${MODULES_DIR:-$TARGET/usr/lib/modules}/$1 module path
    [ -d "$from" ] || return 0
    local to=$ROOT/usr/lib/modules/$1
    mkdir -p "$to"
    for module in $MODULES; do
        modprobe -d "$MODULES_ROOT" -S "$1" --show-depends "$module" | sed -n 's/^insmod \([^ ]*\).*/\1/p'
    done | sort -u | while read -r path; do
        # Unpacked: busybox's modprobe reads no compressed modules.
        case $path in
        *.xz) xz -dc "$path" >"$to/$(basename "$path" .xz)" ;;
        *.zst) zstd -qdc "$path" >"$to/$(basename "$path" .zst)" ;;
        *) cp "$path" "$to/" ;;
        esac
    done
    cp "$from"/modules.builtin* "$to/"
    depmod -b "$ROOT/usr" "$1"
}

main() {
    TARGET=$1
    local board_dir=$2 verity=$3 release=$4 out=$5 link
    # shellcheck source=/dev/null
    . "$board_dir/meta"
    ROOT=$(mktemp -d)
    trap 'rm -rf "$ROOT"' EXIT
    mkdir -p "$ROOT"/{data,dev,etc,proc,run,sys,sysroot,usr/bin,usr/lib}
    for link in bin:usr/bin sbin:usr/bin lib:usr/lib lib64:usr/lib usr/sbin:bin; do ln -s "${link#*:}" "$ROOT/${link%%:*}"; done
    add_programs
    MODULES_ROOT=${MODULES_ROOT:-$TARGET}
    add_modules "$release"
    install -m 755 "$COMMON_DIR/initrd/init" "$ROOT/init"
    install -m 755 "$COMMON_DIR/initrd/prepare-data" "$ROOT/usr/bin/prepare-data"
    cp "$board_dir/meta" "$ROOT/etc/board"
    cp "$verity" "$ROOT/etc/verity"
    find "$ROOT" -exec touch -h -d "@${SOURCE_DATE_EPOCH:-0}" {} +
    (cd "$ROOT" && find . -print0 | LC_ALL=C sort -z | cpio --null --create --format=newc --owner=0:0 --reproducible --quiet) |
        zstd -q -19 -T0 >"$out"
}
main "$@"
