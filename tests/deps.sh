#!/bin/sh
# Installs the Debian packages that building and testing Weir need, when any is missing. Root or sudo; quiet when there is
# nothing to do.
set -eu
packages="gcc make pkg-config libc6-dev
libevent-dev libyaml-dev libaio-dev libzstd-dev liblz4-dev libxxhash-dev librocksdb-dev libsnappy-dev zlib1g-dev
libisal-dev libssl-dev libjansson-dev libprotobuf-c-dev libcunit1-dev
clang clang-format libclang-rt-14-dev llvm-14
kcat librdkafka-dev python3 python3-confluent-kafka python3-kafka
python3-snappy python3-lz4 python3-zstandard python3-xxhash libfuse3-dev fuse3 xfsprogs procps git"
missing=
for p in $packages; do
    dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q ' installed' || missing="$missing $p"
done
[ -z "$missing" ] && exit 0
echo "installing:$missing"
sudo=
[ "$(id -u)" = 0 ] || sudo=sudo
export DEBIAN_FRONTEND=noninteractive
$sudo apt-get -qq update
# shellcheck disable=SC2086
$sudo apt-get -qq install -y --no-install-recommends $missing >/dev/null
