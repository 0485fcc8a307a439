# U-Boot boot script: chooses the slot and starts its FIT (kernel and initrd).
# Boot state (shared with fw_setenv and RAUC): BOOT_ORDER and BOOT_<slot>_LEFT.
#   LEFT = 9     committed: never counted, so power cycles can't use a slot up
#   LEFT = 1..8  a trial: counted down before each try
#   LEFT = 0     left alone: its trial failed, or it is being written
# Without a usable slot both count as committed again: no path ends in "all slots bad".
# Values between @…@ come from the board's meta.
setenv BOOT_ORDER "A B"
setenv BOOT_A_LEFT 9
setenv BOOT_B_LEFT 9
setenv disk "@UBOOT_IF@ @UBOOT_DEV@"
part start ${disk} @PART_ENV@ env_start
setexpr env_blocks @UBOOT_ENV_HEX@ / 200
@UBOOT_IF@ read @ADDR_ENV@ ${env_start} ${env_blocks}
env import -c @ADDR_ENV@ @UBOOT_ENV_HEX@ BOOT_ORDER BOOT_A_LEFT BOOT_B_LEFT || echo "comptoir-uboot: boot state damaged, factory state used"

setenv save_state 'env export -c -s @UBOOT_ENV_HEX@ @ADDR_ENV@ BOOT_ORDER BOOT_A_LEFT BOOT_B_LEFT; @UBOOT_IF@ write @ADDR_ENV@ ${env_start} ${env_blocks}'

setenv chosen none
for slot in ${BOOT_ORDER}; do
    if test "${chosen}" = none; then
        if test "${slot}" = A; then setenv left ${BOOT_A_LEFT}; else setenv left ${BOOT_B_LEFT}; fi
        if test ${left} -gt 0; then setenv chosen ${slot}; fi
    fi
done
if test "${chosen}" = none; then
    echo "comptoir-uboot: no slot left, both are tried anew"
    setenv chosen A
    setenv left 9
    setenv BOOT_ORDER "A B"
    setenv BOOT_A_LEFT 9
    setenv BOOT_B_LEFT 9
    run save_state
fi
setenv trial 0
if test ${left} -lt 9; then
    setenv trial 1
    setexpr left ${left} - 1
    setenv BOOT_${chosen}_LEFT ${left}
    run save_state
fi
if test "${chosen}" = A; then setenv boot_part @PART_BOOT_A@; else setenv boot_part @PART_BOOT_B@; fi

echo "comptoir-uboot: slot=${chosen} trial=${trial} left=${left}"
setenv bootargs "console=@CONSOLE@ loglevel=5 panic=5 net.ifnames=0 rauc.slot=${chosen} comptoir.slot=${chosen} comptoir.trial=${trial}"
part start ${disk} ${boot_part} fit_start
part size ${disk} ${boot_part} fit_blocks
@UBOOT_IF@ read @ADDR_FIT@ ${fit_start} ${fit_blocks}
bootm @ADDR_FIT@#box @ADDR_FIT@#box @ADDR_FDT@

# Only reached when the FIT can't be started: leave this slot alone and take the other.
echo "comptoir-uboot: slot ${chosen} does not start"
setenv BOOT_${chosen}_LEFT 0
run save_state
reset
