#!/bin/sh
# Runs a command in another root with this machine's network, for fetching packages into it. For installation.py, which
# runs it in a mount namespace of its own (unshare --mount), so that nothing stays mounted.
#
# enter-root.sh ROOT REPOSITORY ENVIRONMENT COMMAND...
#   REPOSITORY   is seen, read-only, as /src
#   ENVIRONMENT  is seen as /opt/ostler
set -eu
root=$1 repository=$2 environment=$3
shift 3
mkdir -p "$root/src" "$root/opt/ostler" "$root/etc/ssl/certs"
mount --bind "$repository" "$root/src"
mount -o remount,bind,ro "$root/src"
mount --bind "$environment" "$root/opt/ostler"
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/tmp"
# Names and certificates of this machine, as a container would get them.
for file in /etc/resolv.conf /etc/hosts /etc/ssl/certs/ca-certificates.crt; do
    [ ! -e "$file" ] || cat "$file" > "$root$file"
done
exec chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 \
    PIP_CERT=/etc/ssl/certs/ca-certificates.crt PIP_DISABLE_PIP_VERSION_CHECK=1 "$@"
