# The keeper of one test host: starts it, and ends it when standard input ends.
#   sh -c "$keeper" keeper NAME BOOT_SCRIPT
# Standard input is the lifeline. Only the test holds its other end, so however the test ends, killed or not, the
# keeper sees the end of it and ends the machine's process namespace; with it go all its processes and mounts.
name=$1 boot=$2
exec 3<&0 </dev/null

# Its own control groups: hosts that run at the same time would otherwise share systemd-nspawn's `payload`.
own() { # the folder of this process's group: KEY as in /proc/self/cgroup, MOUNT
    path=$(sed -n "s/^[0-9]*:$1://p" /proc/self/cgroup)
    [ -n "$path" ] && [ -n "$2" ] && echo "${2%/}${path%/}/$name"
}
groups=$(
    own 'name=systemd' "$(awk '$3 == "cgroup" && $4 ~ /name=systemd/ { print $2; exit }' /proc/mounts)"
    own '' "$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)"
)
# What is left of hosts whose test and keeper were killed both: empty groups, named after that test's process.
for group in $groups; do
    for old in "${group%/*}"/dorc-test-*; do
        test=${old##*/dorc-test-}
        [ -d "/proc/${test%-*}" ] || [ ! -d "$old" ] || find "$old" -depth -type d -exec rmdir {} + 2>/dev/null
    done
done

remove_groups() {
    for group in $groups; do
        [ ! -d "$group" ] || find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || return 1
    done
}

GROUPS_OF_HOST=$groups NAME_OF_HOST=$name \
    unshare --mount --propagation private --pid --fork --kill-child --mount-proc sh -c "$boot" boot &
machine=$!
(cat <&3 >/dev/null; kill -KILL "$machine" 2>/dev/null) &
lifeline=$!
exec 3<&-

wait "$machine"
status=$?
kill "$lifeline" 2>/dev/null
# A group can be removed when its last process is gone: that is also the proof that nothing is left.
tries=0
until remove_groups; do
    tries=$((tries + 1))
    [ "$tries" -lt 200 ] || { echo "control groups of $name are left: $groups"; exit 1; }
    sleep 0.05
done
exit "$status"
