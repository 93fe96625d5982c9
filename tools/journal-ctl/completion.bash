# Bash completion for journal-ctl. Source it, or install it as
# /usr/share/bash-completion/completions/journal-ctl.

_journal_ctl() {
    local cur prev words=() i data=
    cur=${COMP_WORDS[COMP_CWORD]}
    prev=${COMP_WORDS[COMP_CWORD - 1]}
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
        --data)
            data=${COMP_WORDS[++i]}
            ;;
        -o | --output | --shard | --from | --to | --limit | --time | --format) ((i++)) ;;
        -*) ;;
        *) words+=("${COMP_WORDS[i]}") ;;
        esac
    done
    COMPREPLY=()
    case $prev in
    --data)
        mapfile -t COMPREPLY < <(compgen -d -- "$cur")
        return
        ;;
    -o | --output)
        mapfile -t COMPREPLY < <(compgen -W "table json jsonl" -- "$cur")
        return
        ;;
    --shard)
        _journal_ctl_ids "$data" shard "$cur"
        return
        ;;
    --format)
        mapfile -t COMPREPLY < <(compgen -W "kafka-log json" -- "$cur")
        return
        ;;
    --from | --to | --limit | --time) return ;;
    esac
    if [[ $cur == -* ]]; then
        _journal_ctl_options "$cur" "${words[@]}"
        return
    fi
    case "${words[*]}" in
    "") mapfile -t COMPREPLY < <(compgen -W "shard segment wal verify rows stat export repair index config" -- "$cur") ;;
    shard) mapfile -t COMPREPLY < <(compgen -W "ls describe offsets" -- "$cur") ;;
    segment) mapfile -t COMPREPLY < <(compgen -W "ls identity head dump verify" -- "$cur") ;;
    wal) mapfile -t COMPREPLY < <(compgen -W "dump verify" -- "$cur") ;;
    rows) mapfile -t COMPREPLY < <(compgen -W "dump" -- "$cur") ;;
    index) mapfile -t COMPREPLY < <(compgen -W "rebuild" -- "$cur") ;;
    export) _journal_ctl_ids "$data" shard "$cur" ;;
    "export "*) mapfile -t COMPREPLY < <(compgen -d -- "$cur") ;;
    config) mapfile -t COMPREPLY < <(compgen -W "check" -- "$cur") ;;
    "config check") mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
    "shard describe" | "shard offsets") _journal_ctl_ids "$data" shard "$cur" ;;
    "segment head" | "segment dump" | "segment verify") _journal_ctl_ids "$data" segment "$cur" ;;
    esac
}

_journal_ctl_options() {
    local cur=$1 all="--data --output -o --verbose -v --help -h --version"
    shift
    case "$*" in
    "shard offsets"*) all+=" --time" ;;
    "segment ls") all+=" --logical" ;;
    "segment dump"*) all+=" --shard --records" ;;
    "wal dump"*) all+=" --from --limit --records" ;;
    export*) all+=" --format --from --to" ;;
    repair* | "index rebuild"*) all+=" --dry-run" ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$all" -- "$cur")
}

# Numbers of what is there, and topic/partition for shards.
_journal_ctl_ids() {
    local line id name list=
    while IFS= read -r line; do
        id=${line#*'"id":'}
        list+=" ${id%%,*}"
        if [[ $line == *'"topic":"'* ]]; then
            name=${line#*'"name":"'}
            list+=" ${name%%'"'*}"
        fi
    done < <("${COMP_WORDS[0]}" --data "${1:-./data}" -o jsonl "$2" ls 2>/dev/null)
    mapfile -t COMPREPLY < <(compgen -W "$list" -- "$3")
}

complete -F _journal_ctl journal-ctl
