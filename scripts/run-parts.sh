#!/usr/bin/env bash
# The parts of scripts/run, a function per verb. Source it after lib.sh.
# shellcheck shell=bash disable=SC2034  # some variables are used by the other parts of scripts/run

RUN_DIR=$TARGET_DIR_CARGO/run
# Built for this machine without link-time optimisation: quick to build, quick enough to run. Tests take the `dev`
# profile, which they have built already.
PROFILE=${COMPTOIR_PROFILE:-fast}
PROGRAMS_DIR=$TARGET_DIR_CARGO/${PROFILE/dev/debug}
SITE_ID=demo-shop
BUS_KEY_NAME=site-demo
# One line a process that this run started: PID NAME LOG
STARTED=()

build_for_host() {
    progress "build box, platform and devices for this machine" \
        cargo build --manifest-path "$REPO_DIR/Cargo.toml" --workspace --locked --profile "$PROFILE"
}

prepare_native() {
    install_packages host-build
    build_for_host
    # Every run has loopback addresses of its own, so that each part keeps its true port.
    local high=$((OFFSET / 200)) low=$((OFFSET % 200 + 1))
    PLATFORM_ADDR=127.57.$high.$low
    KITCHEN_ADDR=127.58.$high.$low
    KIOSK_ADDR=127.59.$high.$low
    BOX_ADDR=127.0.0.1
    BOX_DATA=$DATA/box
    PORT_SHIFT=$OFFSET
    API_URL=https://$PLATFORM_ADDR:8443
    BUS_URL=https://$PLATFORM_ADDR:8444
    MEDIA_URL=https://$PLATFORM_ADDR:8445
    IN_LAN=()
    PLATFORM_LISTEN=(--api "$PLATFORM_ADDR:8443" --bus "$PLATFORM_ADDR:8444" --blob "$PLATFORM_ADDR:8445")
    SITE_HOSTS="api_url = \"$API_URL\"
bus_url = \"$BUS_URL\"
media_url = \"$MEDIA_URL\"
"
    SITE_EXTRA="
[lan]
bind = \"$BOX_ADDR\"
port_offset = $PORT_SHIFT

[store]
data_dir = \"$BOX_DATA\"
"
}

# box_port BASE: a LAN port of this run's box.
box_port() { say "$(($1 + PORT_SHIFT))"; }
box_url() { say "http://$BOX_ADDR:$(box_port "$1")"; }

random_hex() { od -An -N"$1" -tx1 /dev/urandom | tr -d ' \n'; }

# Claim code, site token and bus key are made once per data folder; nothing has a default password.
make_secrets() {
    local file=$DATA/secrets.env
    if [ ! -s "$file" ]; then
        (
            umask 077
            {
                say "CLAIM_CODE=$(random_hex 5)"
                say "SITE_TOKEN=$(random_hex 24)"
                say "BUS_KEY=$(random_hex 24)"
            } >"$file"
        )
    fi
    # shellcheck disable=SC1090  # written just above
    . "$file"
}

# start NAME COMMAND…: runs it in the background with a log of its own.
start() {
    local name=$1 log=$DATA/logs/$1.log
    shift
    "$@" >>"$log" 2>&1 &
    STARTED+=("$! $name $log")
}

start_platform() {
    rm -f "$DATA/platform.ready"
    start platform "${IN_LAN[@]}" "$PROGRAMS_DIR/platform-emulator" "${PLATFORM_LISTEN[@]}" \
        --control "$PLATFORM_ADDR:8446" --name "$PLATFORM_ADDR" \
        --ca-dir "$DATA/ca" --data "$DATA/platform" \
        --site "$SITE_ID" --token "$SITE_TOKEN" --bus-key-name "$BUS_KEY_NAME" --bus-key "$BUS_KEY" \
        --catalogue "$CATALOGUE" --ready-file "$DATA/platform.ready"
    wait_for "the platform serves" 300 test -s "$DATA/platform.ready"
    CONTROL_URL=http://$PLATFORM_ADDR:8446
}

write_site_file() {
    cp "$DATA/ca/ca.pem" "$DATA/site/ca.pem"
    (
        umask 077
        cat >"$DATA/site/site.toml" <<TOML
# What an installer brings: written by scripts/run.
[site]
site_id = "$SITE_ID"
name = "Demo shop"
claim_code = "$CLAIM_CODE"
support_contact = "+33 1 23 45 67 89"

[wan]
token = "$SITE_TOKEN"
$SITE_HOSTS
[wan.trust]
ca_files = ["ca.pem"]

[wan.bus]
key_name = "$BUS_KEY_NAME"
key = "$BUS_KEY"

[lan.support]
enabled = true
$SITE_EXTRA
TOML
    )
}

start_box_native() {
    BOX_LOG=$DATA/logs/box.log
    start box "$PROGRAMS_DIR/comptoir" supervise --image-file "$DATA/site/no-image-file.toml" --site-file "$DATA/site/site.toml"
    BOX_PID=${STARTED[-1]%% *}
}

# wait_for WHAT SECONDS COMMAND…: polls; says what it waits for; stops when a part has ended.
wait_for() {
    local what=$1 deadline=$((SECONDS + $2)) started=$SECONDS said=$SECONDS
    shift 2
    say "· waiting until $what …"
    until "$@" >/dev/null 2>&1; do
        check_all_run
        [ $SECONDS -lt $deadline ] || die "not so after $((SECONDS - started)) s: $what. Logs: $DATA/logs"
        if [ $((SECONDS - said)) -ge 10 ]; then
            said=$SECONDS
            say "  … $((SECONDS - started)) s$(progress_note)"
        fi
        sleep 0.3
    done
    say "✓ $what: $((SECONDS - started)) s"
}

# The last line the box said, to be seen while waiting.
progress_note() {
    [ -s "${BOX_LOG:-}" ] || return 0
    printf ', box: %s' "$(tail -n 1 "$BOX_LOG" | tr -d '\r\033' | cut -c1-100)"
}

check_all_run() {
    local line pid name log
    for line in "${STARTED[@]}"; do
        read -r pid name log <<<"$line"
        kill -0 "$pid" 2>/dev/null || {
            tail -n 20 "$log" >&2
            die "$name has ended (log: $log)"
        }
    done
}

ask() { curl -fsS --noproxy '*' --max-time 5 "$@"; }

box_serves() { ask "$(box_url 80)/readyz"; }

catalogue_is_in() { ask "$(box_url 80)/status.json" | grep -q '"caught_up": *true'; }

# A device of the developer's own, for the token in box.env.
pair_workbench() {
    local file=$DATA/workbench.json
    if [ ! -s "$file" ]; then
        ask -X POST "$(box_url 8004)/v1/pair" -H 'Content-Type: application/json' \
            -d "{\"code\":\"$CLAIM_CODE\",\"name\":\"workbench\",\"role\":\"developer\"}" >"$file.new"
        mv "$file.new" "$file"
    fi
    DEVICE_TOKEN=$(sed -nE 's/.*"token": *"([^"]+)".*/\1/p' "$file")
    [ -n "$DEVICE_TOKEN" ] || die "the box gave no token: $(cat "$file")"
}

start_devices() {
    start kitchen "${IN_LAN[@]}" "$PROGRAMS_DIR/device-emulator" --bind "$KITCHEN_ADDR" --box "$BOX_ADDR" \
        --care-url "$(box_url 8004)" --pair-code "$CLAIM_CODE" --name "Kitchen screen" --role kitchen \
        --state "$DATA/kitchen" --log "$DATA/logs/kitchen-commands.ndjson"
    start kiosk "${IN_LAN[@]}" "$PROGRAMS_DIR/device-emulator" --bind "$KIOSK_ADDR" --box "$BOX_ADDR" \
        --care-url "$(box_url 8004)" --pair-code "$CLAIM_CODE" --name "Kiosk" --role kiosk \
        --state "$DATA/kiosk" --log "$DATA/logs/kiosk-commands.ndjson"
}

devices_are_paired() {
    local status
    status=$(ask "$(box_url 80)/status.json")
    grep -q 'Kitchen screen' <<<"$status" && grep -q 'Kiosk' <<<"$status"
}

# One order over the bus, so that there is something to see.
place_order() {
    ask -X POST "$CONTROL_URL/control/orders" -H 'Content-Type: application/json' \
        -d "{\"order_id\":\"web-$(random_hex 4)\",\"lines\":[{\"product\":\"quiche\",\"quantity\":2},{\"product\":\"espresso\",\"quantity\":1}]}" >/dev/null
}

write_box_env() {
    (
        umask 077
        cat >"$RUN_DIR/box.env.new" <<ENV
PORTAL_URL=$(box_url 80)
CATALOGUE_URL=$(box_url 8000)
ORDERS_URL=$(box_url 8001)
EVENTS_URL=$(box_url 8002)
MEDIA_URL=$(box_url 8003)
CARE_URL=$(box_url 8004)
SUPPORT_URL=$(box_url 8005)
DISCOVERY_ADDR=$BOX_ADDR:$(box_port 57854)
CLAIM_CODE=$CLAIM_CODE
DEVICE_TOKEN=$DEVICE_TOKEN
PLATFORM_URL=$API_URL
BUS_URL=$BUS_URL
CONTROL_URL=$CONTROL_URL
CA_FILE=$DATA/ca/ca.pem
BOX_PID=$BOX_PID
BOX_LOG=$BOX_LOG
ENV
    )
    mv "$RUN_DIR/box.env.new" "$RUN_DIR/box.env"
}

print_where_to_look() {
    cat <<HERE

The box serves.
  portal          $(box_url 80)/
  products        curl -H "Authorization: Bearer \$DEVICE_TOKEN" $(box_url 8000)/v1/documents/products
  live events     curl -N -H "Authorization: Bearer \$DEVICE_TOKEN" $(box_url 8002)/v1/events
  an order        curl -X POST $CONTROL_URL/control/orders -H 'Content-Type: application/json' -d '{"order_id":"web-1","lines":[]}'
                  then see it done in the kitchen: tail -f $DATA/logs/kitchen-commands.ndjson
  metrics         $(box_url 8005)/metrics
  platform        $API_URL (stand-in; its remote control: $CONTROL_URL)
  logs            $DATA/logs/, the box's: $BOX_LOG
  for scripts     . $RUN_DIR/box.env

Ctrl-C ends it all.
HERE
}

wait_until_something_ends() {
    # `wait` returns at once on Ctrl-C, so the trap runs without delay.
    wait -n || true
    check_all_run
}

stop_all() {
    local line pid tick
    for line in "${STARTED[@]}"; do kill "${line%% *}" 2>/dev/null || true; done
    for line in "${STARTED[@]}"; do
        pid=${line%% *}
        for ((tick = 0; tick < 150; tick++)); do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.1
        done
        kill -9 "$pid" 2>/dev/null || true
    done
    if [ "$MODE" = image ] && [ -n "${VM:-}" ]; then stop_lan; fi
    rm -f "$RUN_DIR/box.env"
}
