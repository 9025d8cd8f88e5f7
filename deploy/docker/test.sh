#!/bin/bash
# Builds the runtime stage of the Dockerfile from scratch by buildah, and runs it: read-only, as the image's user, without
# capabilities. Usage: test.sh PROGRAM. Needs root, buildah, runc and curl. No registry is needed.
#
# The stage `build` is not run: its image is in a registry.
set -euo pipefail
program=$(realpath "$1")
here=$(dirname "$(realpath "$0")")
work=$(mktemp -d)
export BUILDAH_ISOLATION=chroot
store=(--root "$work/store" --runroot "$work/run" --storage-driver vfs)
pid=
finish() {
  if [ -n "$pid" ]; then kill "$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true; fi
  [ -z "${mounted:-}" ] || umount "$work/bundle/rootfs/tmp" "$work/bundle/rootfs/media" "$work/bundle/rootfs" 2>/dev/null || true
  rm -rf "$work"
}
trap finish EXIT
fail() {
  echo "test.sh: $*" >&2
  [ ! -e "$work/log" ] || cat "$work/log" >&2
  exit 1
}

# The stage `build` as a context without it: the folder that `COPY --from=build` copies.
mkdir -p "$work/context"
"$here/rootfs.sh" "$program" "$work/context/root-of-image"
sed -n '/^FROM scratch/,$p' "$here/Dockerfile" | sed 's/^COPY --from=build/COPY/; s,/root-of-image /,root-of-image /,' >"$work/context/Dockerfile"
buildah "${store[@]}" bud --quiet --format docker --tag millpond "$work/context" || fail "buildah"
config=$(buildah "${store[@]}" inspect --type image millpond |
  python3 -c 'import json, sys; print(json.dumps(json.load(sys.stdin)["Docker"]["config"]))')
echo "$config"
container=$(buildah "${store[@]}" from millpond)
image=$(buildah "${store[@]}" mount "$container")
size=$(du -sb "$image" | cut -f1)
[ -z "$(find "$image" -perm /6000)" ] || fail "a file is setuid"
[ ! -e "$image/bin/sh" ] || fail "there is a shell"

# Runs it as the image says, with the mounts of `docker run --read-only --tmpfs /tmp -v MEDIA:/media:ro`.
value() { python3 -c 'import json,sys; c=json.load(sys.stdin); v=c[sys.argv[1]]; print("\n".join(v) if isinstance(v,list) else v)' "$1" <<<"$config"; }
mkdir -p "$work/bundle/rootfs" "$work/media"
echo hello >"$work/media/hello.txt"
mount --bind "$image" "$work/bundle/rootfs"
mounted=1
mount -o remount,bind,ro "$work/bundle/rootfs"
mount --bind "$work/media" "$work/bundle/rootfs/media"
mount -o remount,bind,ro "$work/bundle/rootfs/media"
mount -t tmpfs -o noexec,nosuid,nodev,size=64m tmpfs "$work/bundle/rootfs/tmp"
mapfile -t variables < <(value Env)
mapfile -t command < <(value Entrypoint; value Cmd)
user=$(value User)
inside() {
  exec python3 - "$work/bundle/rootfs" "${user%:*}" "${user#*:}" "${#variables[@]}" "${variables[@]}" "$@" <<'PYTHON'
import ctypes, os, sys
root, uid, gid, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
rest = sys.argv[5:]
env = dict(pair.split("=", 1) for pair in rest[:count])
os.chroot(root)
os.chdir("/")
os.setgroups([])
prctl = ctypes.CDLL(None).prctl
for capability in range(64):
    prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP
os.setgid(gid)
os.setuid(uid)
prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
os.execve(rest[count], rest[count:], env)
PYTHON
}
# Free ports, since all use the network of the machine here.
(variables+=(MILLPOND_LISTEN=127.0.0.1:0 MILLPOND_ADMIN=127.0.0.1:0); inside "${command[@]}") >"$work/announced" 2>"$work/log" &
pid=$!
for _ in $(seq 600); do
  grep -q '^  request' "$work/announced" && break
  kill -0 "$pid" 2>/dev/null || fail "the program ended at once"
  sleep 0.1
done
listening=$(sed -n 's/^  listening  //p' "$work/announced")
admin=$(sed -n 's/^  admin *http:\/\///p' "$work/announced")
mapfile -t check < <(python3 -c 'import json,sys; print("\n".join(json.load(sys.stdin)["Healthcheck"]["Test"][1:]))' <<<"$config")
(variables+=("MILLPOND_ADMIN=$admin"); inside "${check[@]}") || fail "the health check"
[ "$(curl -fsS -r 1-3 "$listening/media/hello.txt")" = ell ] || fail "a range is not served"
grep -E '^(Uid|NoNewPrivs|CapEff|CapBnd)' "/proc/$pid/status"
grep -q "^Uid:.${user%:*}" "/proc/$pid/status" || fail "another user"
kill -TERM "$pid"
wait "$pid" || fail "exit code $? after SIGTERM"
pid=
(variables+=("MILLPOND_ADMIN=$admin"); inside "${check[@]}") && fail "the health check passes without a server"
echo "ok: an image of $size bytes"
