#!/bin/bash
# boot.sh ROOT NAME: boots ROOT under systemd as PID 1, in a mount and network namespace of its own, until it powers off.
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
umount -R /sys/fs/cgroup 2>/dev/null || umount -l /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mountpoint -q /sys/fs/bpf || mount -t bpf bpf /sys/fs/bpf
export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
exec timeout 150 systemd-nspawn --boot --register=no --keep-unit --private-network --machine="$2" \
    --system-call-filter="bpf perf_event_open open_by_handle_at" --capability=all --bind=/sys/fs/bpf -D "$1"
