# facts: what both hooks need to know, from the environment (scripts/image sets all of it) or,
# called by Buildroot, from the hook's second argument and this repository. Sourced by the hooks.
#   COMPTOIR_BOARD_DIR    board/<…> with `meta` (Buildroot: BR2_ROOTFS_POST_SCRIPT_ARGS)
#   COMPTOIR_VERSION      label of this image (Buildroot: exported by package/comptoir)
#   COMPTOIR_SIGNING_DIR  ca.cert.pem, signer.cert.pem, signer.key.pem (default: target/ca)
#   SOURCE_DATE_EPOCH     release time (Buildroot: BR2_REPRODUCIBLE exports it)
# shellcheck shell=bash
facts() {
    COMPTOIR_BOARD_DIR=${COMPTOIR_BOARD_DIR:-${1:?the board folder}}
    COMPTOIR_SIGNING_DIR=${COMPTOIR_SIGNING_DIR:-$COMMON_DIR/../../target/ca}
    [ -e "$COMPTOIR_SIGNING_DIR/ca.cert.pem" ] || {
        echo "no signing authority in $COMPTOIR_SIGNING_DIR (COMPTOIR_SIGNING_DIR; scripts/image makes one for tests)" >&2
        return 1
    }
    : "${COMPTOIR_VERSION:?}" "${SOURCE_DATE_EPOCH:?}"
    export COMPTOIR_BOARD_DIR COMPTOIR_SIGNING_DIR COMPTOIR_VERSION SOURCE_DATE_EPOCH
    # shellcheck source=/dev/null
    . "$COMPTOIR_BOARD_DIR/meta"
}
