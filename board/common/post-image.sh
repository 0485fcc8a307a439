#!/usr/bin/env bash
# Buildroot's post-image hook, used by the bench image as well: from kernel, root file system
# and U-Boot to the disk image and the signed update bundle.
#   $1 or BINARIES_DIR   holds rootfs.squashfs, Image, u-boot.bin; gets disk.img, update.raucb
#   TARGET_DIR           the tree the initrd's programs are taken from
#   COMPTOIR_OUTPUTS     what to make: "disk bundle" (default) or one of them; the rest: facts.sh
set -euo pipefail

COMMON_DIR=$(cd "$(dirname "$0")" && pwd)
. "$COMMON_DIR/render.sh"
. "$COMMON_DIR/facts.sh"
BINARIES_DIR=${1:-${BINARIES_DIR:?}}
[ -z "${HOST_DIR:-}" ] || PATH=$HOST_DIR/bin:$HOST_DIR/sbin:$PATH
WORK=$BINARIES_DIR/comptoir

# Appends the hash tree to the root image and notes what the initrd needs to open it.
seal_root() {
    local bytes blocks salt hash
    cp --reflink=auto "$BINARIES_DIR/rootfs.squashfs" "$WORK/root.img"
    truncate -s %4096 "$WORK/root.img"
    bytes=$(stat -c %s "$WORK/root.img")
    blocks=$((bytes / 4096))
    # Derived from the content: the same root gives the same image.
    salt=$(sha256sum "$WORK/root.img" | cut -c1-64)
    hash=$(veritysetup format --hash=sha256 --data-block-size=4096 --hash-block-size=4096 --salt="$salt" \
        --uuid="${salt:0:8}-${salt:8:4}-${salt:12:4}-${salt:16:4}-${salt:20:12}" \
        --data-blocks="$blocks" --hash-offset="$bytes" "$WORK/root.img" "$WORK/root.img" |
        sed -n 's/^Root hash:[[:space:]]*//p')
    # One block for verity's own header, then the tree.
    printf 'VERITY_ROOT_HASH=%s\nVERITY_SALT=%s\nVERITY_DATA_BLOCKS=%s\nVERITY_HASH_START=%s\n' \
        "$hash" "$salt" "$blocks" $((blocks + 1)) >"$WORK/verity"
    [ "$(stat -c %s "$WORK/root.img")" -le $((SIZE_ROOT_SLOT_MIB * 1048576)) ] || { echo "root image is larger than its slot" >&2; return 1; }
}

kernel_release() { grep -aom1 'Linux version [0-9][^ ]*' "$BINARIES_DIR/Image" | cut -d' ' -f3; }

make_fit() {
    "$COMMON_DIR/mkinitrd.sh" "$TARGET_DIR" "$COMPTOIR_BOARD_DIR" "$WORK/verity" "$(kernel_release)" "$WORK/initrd"
    ln -f "$BINARIES_DIR/Image" "$WORK/Image" 2>/dev/null || cp "$BINARIES_DIR/Image" "$WORK/Image"
    render "$COMMON_DIR/box.its.in" ADDR_KERNEL COMPTOIR_VERSION >"$WORK/box.its"
    (cd "$WORK" && mkimage -f box.its boot.img >/dev/null)
    [ "$(stat -c %s "$WORK/boot.img")" -le $((SIZE_BOOT_SLOT_MIB * 1048576)) ] || { echo "FIT is larger than its slot" >&2; return 1; }
}

make_boot_script() {
    # shellcheck disable=SC2034  # named in the render below
    UBOOT_ENV_HEX=$(printf '%x' "$UBOOT_ENV_BYTES")
    render "$COMPTOIR_BOARD_DIR/boot.cmd" UBOOT_IF UBOOT_DEV UBOOT_ENV_HEX ADDR_ENV ADDR_FIT ADDR_FDT CONSOLE \
        PART_ENV PART_BOOT_A PART_BOOT_B >"$WORK/boot.cmd"
    mkimage -A arm64 -O linux -T script -C none -n comptoir -d "$WORK/boot.cmd" "$WORK/boot.scr" >/dev/null
    printf 'BOOT_ORDER=A B\nBOOT_A_LEFT=9\nBOOT_B_LEFT=9\n' | mkenvimage -s "$UBOOT_ENV_BYTES" -o "$WORK/env.img" -
}

make_disk() {
    render "$COMMON_DIR/genimage.cfg.in" SIZE_BOOT_MIB SIZE_ENV_MIB SIZE_BOOT_SLOT_MIB SIZE_ROOT_SLOT_MIB SIZE_DATA_MIB >"$WORK/genimage.cfg"
    rm -rf "$WORK/genimage.tmp"
    mkdir -p "$WORK/empty"
    genimage --loglevel 1 --rootpath "$WORK/empty" --tmppath "$WORK/genimage.tmp" \
        --inputpath "$WORK" --outputpath "$BINARIES_DIR" --config "$WORK/genimage.cfg"
    rm -rf "$WORK/genimage.tmp"
}

make_bundle() {
    local bundle=$WORK/bundle
    rm -rf "$bundle" "$BINARIES_DIR/update.raucb"
    mkdir -p "$bundle"
    ln "$WORK/root.img" "$WORK/boot.img" "$bundle/"
    printf '[update]\ncompatible=%s\nversion=%s\n\n[bundle]\nformat=verity\n\n[image.rootfs]\nfilename=root.img\n\n[image.boot]\nfilename=boot.img\n' \
        "$COMPATIBLE" "$COMPTOIR_VERSION" >"$bundle/manifest.raucm"
    # The kernel in the FIT is not compressed: U-Boot starts it at once, the bundle packs it.
    rauc bundle --cert="$COMPTOIR_SIGNING_DIR/signer.cert.pem" --key="$COMPTOIR_SIGNING_DIR/signer.key.pem" \
        --mksquashfs-args="-comp zstd -Xcompression-level ${COMPTOIR_BUNDLE_LEVEL:-6}" \
        "$bundle" "$BINARIES_DIR/update.raucb"
    rm -rf "$bundle"
}

main() {
    facts "${2:-}"
    local outputs=${COMPTOIR_OUTPUTS:-disk bundle}
    mkdir -p "$WORK"
    seal_root
    make_fit
    make_boot_script
    [[ " $outputs " != *" disk "* ]] || make_disk
    [[ " $outputs " != *" bundle "* ]] || make_bundle
}
main "$@"
