#!/bin/bash
# A one-node Slurm on this machine, for tests only (Debian or Ubuntu, as root).
#
#   slurm.sh start   installs what is missing, starts everything, waits until jobs run
#   slurm.sh stop    ends the jobs and everything that start started
#
# Exit codes: 0 done, 1 failed, 2 wrong use, 3 Slurm cannot be had on this machine.
set -euo pipefail

conf=/etc/slurm/slurm.conf
mark="# Written by tests/cluster/slurm.sh: do not edit."
patience=60
export PATH="$PATH:/usr/sbin:/sbin" DEBIAN_FRONTEND=noninteractive

skip() { echo "slurm.sh: $1" >&2; exit 3; }
fail() { echo "slurm.sh: $1" >&2; exit 1; }

ours() { [ -f "$conf" ] && [ "$(head -n 1 "$conf")" = "$mark" ]; }
# The folder with state and logs, as the configuration names it.
state() { sed -n 's/^StateSaveLocation=\(.*\)\/ctld$/\1/p' "$conf"; }
# Is the process running whose number is in this file, and is it the one meant?
alive() { [ -s "$1" ] && [ "$(cat "/proc/$(cat "$1")/comm" 2>/dev/null)" = "$2" ]; }
munge_answers() { munge -n 2>/dev/null | unmunge >/dev/null 2>&1; }
node_answers() {
    timeout 5 sinfo -h -o %t 2>/dev/null | grep -qE '^(idle|mix|alloc)$'
}

install_missing() {
    if command -v slurmctld && command -v slurmd && command -v sinfo && command -v munged; then
        return
    fi >/dev/null
    command -v apt-get >/dev/null || skip "Slurm is not installed and there is no apt-get to install it with."
    { apt-get -qq update || true; apt-get -qq -y --no-install-recommends install slurm-wlm munge; } \
        >/dev/null 2>&1 </dev/null || skip "apt-get could not install slurm-wlm and munge."
    command -v sinfo >/dev/null || skip "sinfo is missing although slurm-wlm was installed."
}

# Munge is how the parts of Slurm recognise each other.
start_munge() {
    if [ ! -s /etc/munge/munge.key ]; then
        (umask 077 && head -c 128 /dev/urandom >/etc/munge/munge.key)
        chown munge: /etc/munge/munge.key
    fi
    munge_answers && return
    install -d -o munge -g munge -m 755 /run/munge
    runuser -u munge -- munged --force || fail "munged did not start."
    touch "$1/started-munged"
}

write_conf() {
    local dir=$1 node=${HOSTNAME%%.*} memory
    # Leave an eighth of the memory to everything else.
    memory=$(awk '/^MemTotal/ {print int($2 / 1024 * 7 / 8)}' /proc/meminfo)
    mkdir -p "$(dirname "$conf")"
    cat >"$conf" <<END
$mark
ClusterName=test
SlurmctldHost=$node(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
MpiDefault=none
MailProg=/bin/true
ReturnToService=2

# Plain processes: no cgroups, no binding to cores, no accounting.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none

# Several jobs share the node; they start and end within about a second.
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,batch_sched_delay=0,bf_interval=1
KillWait=2
SlurmctldTimeout=10
SlurmdTimeout=30

StateSaveLocation=$dir/ctld
SlurmdSpoolDir=$dir/d
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log

# Every processor counts as a core of its own, whatever the sockets and threads.
SlurmdParameters=config_overrides
NodeName=$node NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=$memory State=UNKNOWN
PartitionName=debug Nodes=$node Default=YES MaxTime=INFINITE State=UP
END
    chmod 644 "$conf"
}

start() {
    [ "$(id -u)" = 0 ] || skip "Slurm can only be started by root."
    [ ! -e "$conf" ] || ours || fail "$conf was not written by this script; it is left as it is."
    install_missing

    local dir=""
    if ours; then dir=$(state); fi
    if [ -z "$dir" ] || [ ! -d "$dir" ]; then
        dir=$(mktemp -d -t slurm-test.XXXXXX)
        # The jobs of other users read their scripts below it.
        chmod 755 "$dir"
        mkdir "$dir/ctld" "$dir/d"
        write_conf "$dir"
    fi

    start_munge "$dir"
    # Both go to the background by themselves; neither may hold on to our output.
    alive "$dir/slurmctld.pid" slurmctld || slurmctld >/dev/null 2>&1 </dev/null || true
    alive "$dir/slurmd.pid" slurmd || slurmd >/dev/null 2>&1 </dev/null || true

    local end=$((SECONDS + patience))
    until node_answers && timeout 10 srun -Q -N1 --immediate=5 hostname >/dev/null 2>&1; do
        # All cores may be taken by jobs: then Slurm works all the same.
        [ "$(timeout 5 sinfo -h -o %t 2>/dev/null)" != alloc ] || break
        if [ $SECONDS -ge $end ]; then
            tail -n 20 "$dir"/*.log >&2 || true
            fail "Slurm did not start within $patience s; the ends of its logs are above."
        fi
        sleep 0.5
    done
    echo "Slurm $(sinfo -V | cut -d' ' -f2) runs on ${HOSTNAME%%.*}; its logs are in $dir."
}

# End one process by the number in its file, and wait until it is gone.
end_process() {
    alive "$1" "$2" || return 0
    local pid i
    pid=$(cat "$1")
    kill "$pid"
    for i in $(seq 50); do
        [ -d "/proc/$pid" ] || return 0
        sleep 0.2
    done
    kill -9 "$pid" 2>/dev/null || true
}

stop() {
    [ "$(id -u)" = 0 ] || skip "Slurm can only be stopped by root."
    if [ ! -e "$conf" ]; then return; fi
    ours || fail "$conf was not written by this script; nothing is stopped."
    local dir i jobs
    dir=$(state)
    if [ ! -d "$dir" ]; then return; fi
    # Jobs first: they would outlive the programs that started them.
    for i in $(seq 20); do
        jobs=$(timeout 5 squeue -h -o %A 2>/dev/null || true)
        [ -n "$jobs" ] || break
        # shellcheck disable=SC2086
        timeout 5 scancel $jobs 2>/dev/null || true
        sleep 0.5
    done
    end_process "$dir/slurmd.pid" slurmd
    end_process "$dir/slurmctld.pid" slurmctld
    if [ -e "$dir/started-munged" ]; then
        end_process /run/munge/munged.pid munged
    fi
    rm -rf "$dir"
    echo "Slurm is stopped."
}

case "${1:-}" in
    start) start ;;
    stop) stop ;;
    *) echo "usage: slurm.sh start|stop" >&2; exit 2 ;;
esac
