#!/bin/sh
# PID 1 of the machine that `cargo xtask vm` boots: everything is in memory, and there is no network device.
# The console (ttyS0) is the kernel's; what we say goes to ttyS1, lines for xtask begin with "vm: ".
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TMPDIR=/tmp LC_ALL=C.UTF-8

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
exec </dev/null >/dev/ttyS1 2>&1
stty -F /dev/ttyS1 raw

mkdir -p /dev/shm
mount -t securityfs securityfs /sys/kernel/security
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
for folder in /tmp /run /dev/shm; do
    mount -t tmpfs -o mode=1777 tmpfs "$folder"
done
echo "127.0.0.1 localhost" >/etc/hosts
ulimit -l unlimited
ip link set lo up

echo "vm: release $(uname -r)"

# Once by hand, to see what the kernel makes of the programs.
cgroup=/sys/fs/cgroup/programs
mkdir -p $cgroup/daemon /run/programs/etc/policies
cat >/run/programs/vouchsafe.toml <<END
policies = "/run/programs/etc"
state = "/run/programs/state"
runtime = "/run/programs/run"
protect = true
kernel.cgroup = "$cgroup"
kernel.pin = "/sys/fs/bpf/programs"
journal.journald = ""
control.group = "root"
END
sh -c 'echo $$ >'"$cgroup"'/daemon/cgroup.procs; exec /vm/vouchsafe run --config /run/programs/vouchsafe.toml' \
    >/run/programs/log 2>&1 &
daemon=$!
state=
while [ -z "$state" ]; do
    # It answers, whatever it has to complain about.
    if /vm/vouchsafe status --config /run/programs/vouchsafe.toml --json 2>/dev/null | grep -q '"kernel"'; then
        state=ready
    elif ! kill -0 $daemon 2>/dev/null; then
        state=refused
    else
        sleep 0.2
    fi
done
echo "vm: daemon $state"
sed 's/^/vm: said /' /run/programs/log
python3 /vm/programs.py
/vm/vouchsafe status --config /run/programs/vouchsafe.toml --json 2>/dev/null | python3 -c '
import json, sys
for lack in json.loads(sys.stdin.read() or "{}").get("kernel", {}).get("lacks", []):
    print("vm: lack", lack)'
kill $daemon 2>/dev/null
wait $daemon
/vm/vouchsafe detach --config /run/programs/vouchsafe.toml
rmdir $cgroup/daemon $cgroup

if [ $state = ready ]; then
    # shellcheck disable=SC2046 # words of the filter
    /vm/it --color=never --test-threads=2 $(cat /vm/filter)
fi

echo "vm: end"
sleep 1
# Nothing waits for a clean end: there is no disk. QEMU ends when the machine restarts.
echo b >/proc/sysrq-trigger
