#!/bin/bash
# Installs, starts, upgrades and removes the Debian package on a clean machine: a Debian made in a temporary folder, with
# systemd in a container of systemd-nspawn. scenario.sh has the steps.
# Usage: test.sh PROGRAM. Needs root, cargo-deb, dpkg-dev, mmdebstrap and systemd-container.
set -euo pipefail
program=$(realpath "$1")
here=$(dirname "$(realpath "$0")")
work=$(mktemp -d)
root=$work/root
trap 'rm -rf "$work"' EXIT
step() { echo "== $*"; }

step "build two revisions"
mkdir "$work/packages"
for revision in 1 2; do
  "$here/build.sh" "$program" "$work/packages" "$revision" --fast
done

step "make a clean Debian"
mmdebstrap --quiet --variant=minbase --include=systemd,systemd-sysv,dbus,adduser,procps,curl \
  "$(. /etc/os-release && echo "$VERSION_CODENAME")" "$root"
mkdir "$root/test"
cp "$work"/packages/*-1_*.deb "$root/test/first.deb"
cp "$work"/packages/*-2_*.deb "$root/test/second.deb"
cp "$here/scenario.sh" "$root/test/"
cat >"$root/etc/systemd/system/scenario.service" <<'UNIT'
[Unit]
After=multi-user.target
[Service]
Type=oneshot
Environment=DEBIAN_FRONTEND=noninteractive
ExecStart=/bin/bash /test/scenario.sh
ExecStopPost=/bin/systemctl poweroff --no-block
StandardOutput=file:/test/output
StandardError=file:/test/output
TimeoutStartSec=300s
UNIT
mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
ln -s ../scenario.service "$root/etc/systemd/system/multi-user.target.wants/"

step "boot it"
# It has a network of its own, so the default ports are free.
if ! timeout 400 systemd-nspawn --directory="$root" --register=no --keep-unit --boot --private-network --quiet \
  --console=read-only </dev/null >"$work/console" 2>&1; then
  tail -20 "$work/console" >&2
  echo "test.sh: the container failed" >&2
  exit 1
fi
[ -e "$root/test/output" ] || { tail -20 "$work/console" >&2; exit 1; }
cat "$root/test/output"
tail -1 "$root/test/output" | grep -qx ok || { echo "test.sh: the scenario failed" >&2; exit 1; }
for package in "$work"/packages/*-1_*.deb; do
  echo "ok: $(basename "$package"), $(stat -c %s "$package") bytes"
done
