#!/bin/bash
# Installs, starts, upgrades and removes the Debian package on a clean machine: a Debian made in a temporary folder.
# Usage: test.sh PROGRAM. Needs root, cargo-deb, dpkg-dev and mmdebstrap.
#
# systemd does not run in the folder. The test starts the program with the command, the user, the folder and the
# environment of the installed unit.
set -euo pipefail
program=$(realpath "$1")
here=$(dirname "$(realpath "$0")")
work=$(mktemp -d)
root=$work/root
pid=
finish() {
  if [ -n "$pid" ]; then kill "$pid" 2>/dev/null || true; fi
  rm -rf "$work"
}
trap finish EXIT
fail() {
  echo "test.sh: $*" >&2
  [ ! -e "$work/log" ] || cat "$work/log" >&2
  exit 1
}
step() { echo "== $*"; }

step "build two revisions"
for revision in 1 2; do
  "$here/build.sh" "$program" "$work/packages" "$revision"
done
first=$(ls "$work"/packages/*-1_*.deb) second=$(ls "$work"/packages/*-2_*.deb)

step "make a clean Debian"
mmdebstrap --quiet --variant=minbase --include=adduser,procps "$(. /etc/os-release && echo "$VERSION_CODENAME")" "$root"
# Nothing is there to start services. deb-systemd-invoke asks this file first.
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod +x "$root/usr/sbin/policy-rc.d"

inside() { chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/ DEBIAN_FRONTEND=noninteractive "$@"; }
install_package() {
  cp "$1" "$root/package.deb"
  inside dpkg --install --force-confold /package.deb || fail "dpkg --install $1"
}
# The values of a key of the installed unit.
unit() { sed -n "s/^$1=//p" "$root/lib/systemd/system/millpond.service" "$root/usr/lib/systemd/system/millpond.service" 2>/dev/null | sort -u; }

# Starts the program as the unit does, and waits until it is ready. systemd makes the folders of these keys.
start() {
  local user folder command key variables=()
  user=$(unit User)
  folder=$(unit WorkingDirectory)
  command=$(unit ExecStart)
  for key in State:lib Cache:cache Logs:log; do
    inside install -d -o "$user" -g "$(unit Group)" -m "$(unit "${key%:*}DirectoryMode")" \
      "/var/${key#*:}/$(unit "${key%:*}Directory")"
  done
  mapfile -t variables < <(unit Environment)
  : >"$work/announced"
  # Other ports than the defaults, which a server of this machine may have.
  chroot --userspec="$user:$(unit Group)" "$root" /usr/bin/env -i "${variables[@]}" \
    MILLPOND_LISTEN=127.0.0.1:0 MILLPOND_ADMIN=127.0.0.1:0 \
    /bin/sh -c "cd $folder && exec $command" >>"$work/announced" 2>"$work/log" &
  pid=$!
  local _
  for _ in $(seq 600); do
    grep -q '^  request' "$work/announced" && break
    kill -0 "$pid" 2>/dev/null || fail "the program ended at once"
    sleep 0.1
  done
  listening=$(sed -n 's/^  listening  //p' "$work/announced")
  admin=$(sed -n 's/^  admin *http:\/\///p' "$work/announced")
  inside /usr/bin/millpond health "$admin" || fail "not ready"
}
stop() {
  kill -TERM "$pid"
  wait "$pid" || fail "exit code $? after SIGTERM"
  pid=
}
serves() {
  [ "$(curl -fsS -r 1-3 "$listening/media/hello.txt")" = ell ] || fail "a range is not served"
}

step "install"
install_package "$first"
inside id millpond >/dev/null || fail "no user millpond"
for file in /usr/bin/millpond /usr/share/man/man1/millpond.1.gz /usr/share/man/man1/millpond-serve.1.gz \
  /usr/share/bash-completion/completions/millpond /usr/share/zsh/vendor-completions/_millpond \
  /usr/share/fish/vendor_completions.d/millpond.fish /etc/millpond/config.toml; do
  [ -s "$root$file" ] || fail "$file is not installed"
done
[ "$(stat -c '%U %a' "$root/etc/millpond/config.toml")" = 'root 644' ] || fail "owner or mode of the configuration"
inside dpkg --verify millpond | grep . && fail "files differ from the package"
[ -n "$(unit ExecStart)" ] || fail "no unit"
[ -L "$root/etc/systemd/system/multi-user.target.wants/millpond.service" ] || fail "the service is not enabled"
[ ! -L "$root/etc/systemd/system/sockets.target.wants/millpond.socket" ] || fail "the socket is enabled"
[ -s "$root/usr/share/doc/millpond/examples/millpond.socket" ] || fail "no socket"

step "start as the unit does"
echo hello >"$root/var/lib/millpond/hello.txt"
start
serves
stop

step "a wrong setting ends the start with code 2"
cp "$root/etc/millpond/config.toml" "$work/config.toml"
echo 'no-such-setting = 1' >>"$root/etc/millpond/config.toml"
code=0
inside /bin/sh -c "$(unit ExecStart)" 2>"$work/log" || code=$?
[ "$code" = 2 ] || fail "exit code $code"
grep -q config.toml "$work/log" || fail "the file is not named"
cp "$work/config.toml" "$root/etc/millpond/config.toml"

step "upgrade, with a changed configuration"
echo '# of the operator' >>"$root/etc/millpond/config.toml"
start
install_package "$second"
grep -q 'of the operator' "$root/etc/millpond/config.toml" || fail "the configuration was replaced"
serves
stop
start
serves
stop
inside dpkg-query -W -f '${Version}\n' millpond | grep -q -- '-2$' || fail "the version is not the second"

step "remove"
inside dpkg --remove millpond
[ ! -e "$root/usr/bin/millpond" ] || fail "the program is still there"
grep -q 'of the operator' "$root/etc/millpond/config.toml" || fail "the configuration is gone"
[ -s "$root/var/lib/millpond/hello.txt" ] || fail "media is gone"

step "purge"
inside dpkg --purge millpond
[ ! -e "$root/etc/millpond" ] || fail "the configuration is still there"
[ ! -e "$root/var/cache/millpond" ] || fail "the cache is still there"
[ -s "$root/var/lib/millpond/hello.txt" ] || fail "media is gone"

step "install again, and remove without media"
rm "$root/var/lib/millpond/hello.txt"
install_package "$second"
inside dpkg --purge millpond
[ ! -e "$root/var/lib/millpond" ] || fail "an empty folder is still there"
echo "ok: $(basename "$first"), $(stat -c %s "$first") bytes"
