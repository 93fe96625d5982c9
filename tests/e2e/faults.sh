# The server with fault_shim.c in front of libc; sourced by tests behind server.sh. Not under sanitizers: their own library must come
# first. Makes $work/with_faults, a program to run instead of the server.
# shellcheck shell=bash

fault_number=0

# faults_server BINARY
faults_server() {
    cat >"$work/with_faults" <<EOF
#!/bin/sh
FAULT_CONTROL=$work/control LD_PRELOAD=\$PWD/$bin/fault_shim.so exec $1 "\$@"
EOF
    chmod +x "$work/with_faults"
    head -c 256 /dev/zero >"$work/control"
}

# arm CALL PART NTH COUNT WHAT: as in fault_shim.c.
arm() {
    fault_number=$((fault_number + 1))
    printf '%s\n' "$fault_number $*" | dd of="$work/control" conv=notrunc status=none
}

disarm() {
    arm none none 1 1 EIO
}

# What was armed last has happened.
hit() {
    grep -q "^$fault_number " "$work/control.hits"
}
