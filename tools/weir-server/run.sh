#!/bin/sh
# The server in the foreground; it says itself, once it serves, where and how to try it. Arguments are handed on.
exec "$(dirname "$0")/../../build/weir-server" --banner "$@"
