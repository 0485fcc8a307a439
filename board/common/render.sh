# render FILE NAME…: prints FILE with every @NAME@ replaced by the variable's value.
# Sourced by the hooks.
# shellcheck shell=bash
render() {
    local file=$1 name script=()
    shift
    for name in "$@"; do script+=(-e "s|@$name@|${!name}|g"); done
    sed "${script[@]}" "$file"
    # A name nobody set would end up in the image as it is.
    if sed "${script[@]}" "$file" | grep -E '@[A-Z_]+@' >&2; then return 1; fi
}
