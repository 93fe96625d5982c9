# Mounting, cutting and unmounting the volatile device; sourced by tests. Needs $bin (where its
# program is) and $work.
# shellcheck shell=bash

# Unmounts and ends every volatile device of ours under $work; for the exit trap.
volatile_clean() {
    if [ -n "${volatile_pid:-}" ]; then
        umount -l "$work/disk" 2>/dev/null
        kill "$volatile_pid" 2>/dev/null
        wait "$volatile_pid" 2>/dev/null
        volatile_pid=
    fi
}

# volatile_mount SEED SYNC_US: the folder $work/backing appears at $work/disk. Fails with 3 where
# FUSE cannot be mounted.
volatile_mount() {
    mkdir -p "$work/backing" "$work/disk"
    "$bin/volatile_fs" --seed "$1" --sync-us "$2" "$work/backing" "$work/disk" 2>>"$work/device.log" &
    volatile_pid=$!
    until mountpoint -q "$work/disk"; do
        if ! kill -0 "$volatile_pid" 2>/dev/null; then
            wait "$volatile_pid"
            local rc=$?
            volatile_pid=
            return "$rc"
        fi
        sleep 0.01
    done
}

# Power goes; what the cut did is the last line of $work/device.log.
volatile_cut() {
    echo >"$work/disk/.cut"
}

# volatile_unmount: nobody uses the device any more.
volatile_unmount() {
    umount "$work/disk" 2>/dev/null || umount -l "$work/disk"
    wait "$volatile_pid"
    volatile_pid=
}

# Ends the test as skipped where this machine has no FUSE.
volatile_or_skip() {
    if ! volatile_mount 1 0 2>/dev/null; then
        cat "$work/device.log"
        echo "SKIP: fuse"
        echo "0 passed, 0 failed, 1 skipped"
        exit 0
    fi
    volatile_unmount
}
