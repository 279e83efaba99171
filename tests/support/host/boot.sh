# Runs as the first process of its own process and mount namespaces: an overlay of / on tmpfs, and systemd in it.
set -eu
name=$NAME_OF_HOST groups=$GROUPS_OF_HOST
unset NAME_OF_HOST GROUPS_OF_HOST

mount -t tmpfs -o mode=755 dorc-test-host /run
mkdir /run/upper /run/work /run/root
mount -t overlay -o lowerdir=/,upperdir=/run/upper,workdir=/run/work dorc-test-host /run/root

# A fresh host: nothing enabled but what systemd itself brings, nothing of a dorc that this machine may have.
cd /run/root
rm -rf etc/systemd/system etc/dorc var/lib/dorc usr/local/bin/dorc var/log/journal etc/machine-id
mkdir -p etc/systemd/system etc/systemd/system-generators etc/systemd/journald.conf.d var/log/journal
ln -s /lib/systemd/system/multi-user.target etc/systemd/system/default.target
ln -sf /dev/null etc/systemd/system-generators/systemd-sysv-generator
ln -sf /dev/null etc/systemd/system/console-getty.service
tr -d - </proc/sys/kernel/random/uuid >etc/machine-id
printf '[Journal]\nStorage=persistent\nRateLimitIntervalSec=0\n' >etc/systemd/journald.conf.d/test-host.conf
echo "$name" >etc/hostname
: >etc/fstab
cd /

fresh_groups() {
    for group in $groups; do
        [ ! -d "$group" ] || find "$group" -depth -type d -exec rmdir {} +
        mkdir "$group" || return 1
        echo 0 >"$group/cgroup.procs" || return 1
    done
}

# 133 is a reboot: the same disk, a new boot.
status=133
while [ "$status" -eq 133 ]; do
    status=0
    (
        fresh_groups
        exec systemd-nspawn --quiet --boot --directory=/run/root --machine="$name" --settings=no \
            --register=no --keep-unit --private-network --notify-ready=yes --console=pipe \
            --capability=all --system-call-filter='bpf pidfd_getfd' \
            --link-journal=no --resolv-conf=off --timezone=off
    ) || status=$?
done
exit "$status"
