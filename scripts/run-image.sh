#!/usr/bin/env bash
# The image side of scripts/run: the booted box on a LAN of its own. Source it after run-parts.sh.
# shellcheck shell=bash disable=SC2034  # the variables are used by the other parts of scripts/run

# On the LAN the platform's API, bus and blob storage are told apart by host name, as at a real platform; the bus and
# the blob storage have an address of their own besides, for clients of this machine that know no proxy.
prepare_image() {
    install_packages host-build cross image qemu peers
    progress "build platform and devices for this machine" \
        cargo build --manifest-path "$REPO_DIR/Cargo.toml" --locked --profile "$PROFILE" \
        -p comptoir-platform-emulator -p comptoir-device-emulator
    "$REPO_DIR/scripts/image" --only disk
    VM=$REPO_DIR/scripts/vm
    PLATFORM_ADDR=$(lan_peers "$OFFSET")
    KITCHEN_ADDR=$(lan_device "$OFFSET" 1)
    KIOSK_ADDR=$(lan_device "$OFFSET" 2)
    BOX_ADDR=$(lan_box "$OFFSET")
    PORT_SHIFT=0
    local bus_addr blob_addr
    bus_addr=$(lan_device "$OFFSET" 3)
    blob_addr=$(lan_device "$OFFSET" 4)
    API_URL=https://$PLATFORM_ADDR
    BUS_URL=https://$bus_addr
    IN_LAN=(ip netns exec "$(lan_netns "$OFFSET")")
    PLATFORM_LISTEN=(--listen 0.0.0.0:443 --name "$bus_addr" --name "$blob_addr"
        --api-host api.server.commerce-hub.io --api-host "$PLATFORM_ADDR"
        --bus-host e-serversync-ns.servicebus.windows.net --bus-host koostodesapp-ns.servicebus.windows.net
        --bus-host "$bus_addr" --blob-host simplementedata.blob.core.windows.net --blob-host "$blob_addr"
        --blob-url https://simplementedata.blob.core.windows.net)
    # The box keeps the contract's host names and port 443; the shop's proxy knows where they are.
    SITE_HOSTS="
[wan.proxy]
url = \"http://$PLATFORM_ADDR:3128\"
"
    SITE_EXTRA=
    "$VM" down "$OFFSET"
    "$VM" up "$OFFSET"
    "$VM" proxy "$OFFSET"
}

start_box_image() {
    BOX_LOG=$DATA/box/console.log
    say "· plug the stick in and switch the box on (emulated ARM: a minute or less)"
    "$VM" start "$OFFSET" --data "$DATA/box" --stick "$DATA/site"
    BOX_PID=$("$VM" pid "$OFFSET")
    STARTED+=("$BOX_PID box $BOX_LOG")
}

stop_lan() { "$REPO_DIR/scripts/vm" down "$OFFSET"; }
