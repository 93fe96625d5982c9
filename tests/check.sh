#!/bin/bash
# make check: what the compiler does not see. Prints each problem as file:line: what, and fails when
# there is one.
#
#   - layout is what .clang-format says
#   - includes follow the arrows (docs/architecture.md): base <- format <- journal <- meta <- gateways
#     <- tools; doors know nothing of each other; journal/ is seen from outside through its public
#     headers only
#   - printed docs are what the program prints (when it is built); links in docs lead somewhere
#   - no file has a name that says nothing
set -u
cd "$(dirname "$0")/.." || exit 1
out=${OUT:-build/plain}
problems=0

problem() {
    echo "$1"
    problems=$((problems + 1))
}

# What is in git, and what is about to be.
files() {
    git ls-files -co --exclude-standard -- "$@" | while read -r f; do [ -f "$f" ] && echo "$f"; done
}

check_format() {
    local found
    found=$(files '*.c' '*.h' | xargs -r clang-format --dry-run 2>&1 | grep ': \(warning\|error\):' |
        awk -F: '!seen[$1]++ { print $1 ":" $2 ": is not laid out as .clang-format says (make format)" }')
    [ -z "$found" ] || problem "$found"
}

# Reads "file:line:header" and prints the includes that no arrow allows.
arrows() {
    awk -F: '
    function room(p) { return p ~ /\// ? substr(p, 1, index(p, "/") - 1) : "" }
    function second(p, a) { split(p, a, "/"); return a[2] }
    function door(p) { return p ~ /^gateways\/(kafka|mqtt|amqp|admin)\// }
    function bad(why) { print $1 ":" $2 ": includes " $3 ": " why }
    # The room whose eyes a test has.
    function eyes(p) {
        if (p !~ /^tests\//) return room(p)
        if (p ~ /^tests\/sim\//) return "journal"
        if (p ~ /^tests\/(base|format|journal|meta|gateways|tools)\//) return second(p)
        return "tests"
    }
    BEGIN {
        n = split("base format journal meta gateways tools", names, " ")
        for (i = 1; i <= n; i++) level[names[i]] = i
        level["tests"] = n
    }
    {
        from = eyes($1); to = room($3)
        if ($3 ~ /\.\.\//) { bad("paths start at the root"); next }
        if (to == "") { bad("paths start at the root"); next }
        if (to == "tests" || to == "bench") {
            if (room($1) != to) bad("the product does not know its " to)
            next
        }
        if (!(to in level)) { bad("no such room"); next }
        if (room($1) == "bench") {
            if (to != "base" && $3 !~ /^journal\/(journal\.h|io\/)/ && $3 !~ /^format\/(batch|codec)\.h$/ && $3 != "gateways/topics/topics.h")
                bad("bench/ uses public clients, and for the journal alone its public headers")
            next
        }
        if (!(from in level)) { bad("from outside the rooms"); next }
        if (level[to] > level[from]) { bad("points up from " from "/"); next }
        # Tests of the journal, and simulations of whole servers, look inside it.
        if (to == "journal" && from != "journal" &&
            $1 !~ /^tests\/((journal|sim|fuzz)\/|gateways\/kafka_sim)/) {
            outer = $3 ~ /^journal\/(journal|inspect)\.h$/ || ($3 == "journal/repair.h" && from == "tools")
            io = $3 ~ /^journal\/io\/(dev|rows)\.h$/ && (from == "tools" || $1 ~ /^tests\//)
            if (!outer && !io) bad("private to journal/")
        }
        if (to == "gateways" && from == "gateways" && door($3) && $1 !~ /^tests\//) {
            if (!door($1)) bad("what doors share does not know a door")
            else if (second($1) != second($3)) bad("a door knows nothing of another")
        }
        if (to == "tools" && $1 ~ /^tools\// && second($1) != second($3)) bad("a tool knows nothing of another")
    }'
}

includes() {
    files '*.c' '*.h' | xargs -r grep -nE '^[[:space:]]*#[[:space:]]*include[[:space:]]+"' /dev/null |
        sed -E 's/^([^:]+):([0-9]+):[^"]*"([^"]*)".*/\1:\2:\3/'
}

check_arrows() {
    local found
    found=$(includes | grep -v '\.pb-c\.h$' | arrows)
    [ -z "$found" ] || problem "$found"
}

# The checker itself: each of these must be seen, or the silence above means nothing.
check_the_checker() {
    local line seen
    while read -r line; do
        seen=$(echo "$line" | arrows)
        [ -n "$seen" ] || problem "tests/check.sh:1: does not see that $line is wrong"
    done <<'EOT'
base/buf.c:1:format/batch.h
format/batch.c:1:journal/journal.h
journal/wal.c:1:gateways/net/conn.h
gateways/kafka/fetch.c:1:gateways/mqtt/packet.h
gateways/net/conn.c:1:gateways/kafka/kafka.h
gateways/kafka/fetch.c:1:journal/wal.h
gateways/kafka/fetch.c:1:journal/io/dev.h
tools/journal-ctl/main.c:1:journal/slab.h
tools/journal-ctl/main.c:1:tests/check.h
tests/base/test_buf.c:1:format/batch.h
bench/load.c:1:gateways/kafka/kafka.h
journal/wal.c:1:../base/buf.h
journal/wal.c:1:slab.h
EOT
    while read -r line; do
        seen=$(echo "$line" | arrows)
        [ -z "$seen" ] || problem "tests/check.sh:1: thinks that $line is wrong"
    done <<'EOT'
journal/wal.c:1:format/block.h
gateways/kafka/fetch.c:1:gateways/net/conn.h
gateways/kafka/fetch.c:1:journal/journal.h
tools/weir-server/main.c:1:gateways/kafka/kafka.h
tools/journal-ctl/main.c:1:journal/io/dev.h
tests/journal/test_wal.c:1:journal/wal.h
tests/e2e/check_acked.c:1:tests/e2e/acked.h
EOT
}

check_printed_docs() {
    local server=$out/bin/weir-server found
    [ -x "$server" ] || return
    if ! found=$(diff <("$server" --print-config-docs) docs/config.md 2>&1); then
        problem "docs/config.md:1: is not what weir-server --print-config-docs prints:"
        echo "$found" | head -n 10
    fi
}

check_links() {
    local f line to
    while IFS=: read -r f line to; do
        [ -e "$(dirname "$f")/${to%%#*}" ] || problem "$f:$line: links to $to, which is not there"
    done < <(files '*.md' | xargs -r grep -noE '\]\([^)#][^)]*\)' /dev/null |
        sed -E 's/^([^:]+:[0-9]+):\]\((.*)\)$/\1:\2/' | grep -vE ':[0-9]+:(https?|mailto):')
}

check_names() {
    local f
    while read -r f; do
        problem "$f:1: such code has a better name"
    done < <(files | grep -iE '(^|/)[^/]*(util|common|misc|helper)s?[^/]*$')
}

check_format
check_arrows
check_the_checker
check_printed_docs
check_links
check_names
if [ "$problems" -gt 0 ]; then
    echo "check: there are problems"
    exit 1
fi
echo "check: nothing to mend"
