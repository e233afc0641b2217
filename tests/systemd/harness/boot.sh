#!/bin/sh
# Boots a real systemd on a copy-on-write view of this machine. For realsystemd.py, which runs it in namespaces of its
# own (unshare --mount --pid): whatever happens here is gone with the process.
#
# boot.sh BASE CGROUP [NSPAWN-OPTION...]
#   BASE    an empty folder; a tmpfs is mounted on it that nobody else sees
#   CGROUP  name of a control group to live in, so that several machines can run side by side
#   ROOT    (environment) the root that is looked at, / by default
set -eu
base=$1 cgroup=$2
shift 2

# A machine of its own needs a group of its own: nspawn puts the payload below the group it is started in.
for hierarchy in /sys/fs/cgroup /sys/fs/cgroup/systemd /sys/fs/cgroup/unified; do
    [ -e "$hierarchy/cgroup.procs" ] || continue
    mkdir -p "$hierarchy/$cgroup"
    echo 0 > "$hierarchy/$cgroup/cgroup.procs"
done

mount -t tmpfs -o mode=0755 tmpfs "$base"
mkdir "$base/upper" "$base/work" "$base/root"
mount -t overlay -o "lowerdir=${ROOT:-/},upperdir=$base/upper,workdir=$base/work" overlay "$base/root"

# What this machine's administrator enabled is not wanted, nor are consoles.
mkdir -p "$base/system"
for unit in getty.target console-getty.service systemd-firstboot.service; do
    ln -s /dev/null "$base/system/$unit"
done

exec systemd-nspawn --quiet --directory="$base/root" --register=no --keep-unit --private-network \
    --machine=ostler-test --console=pipe --notify-ready=yes --bind="$base/system:/etc/systemd/system" "$@" \
    --boot -- --unit=multi-user.target
