#!/bin/bash
# Steps of test.sh, inside the container: the package and its service under systemd. The last line is `ok`.
set -euo pipefail
cd /test

fail() {
  echo "scenario.sh: $*"
  journalctl --no-pager -u millpond | tail -20
  exit 1
}
step() { echo "== $*"; }
is_active() { systemctl is-active --quiet millpond; }
process() { systemctl show --property=MainPID --value millpond; }
serves() {
  [ "$(curl -fsS -r 1-3 http://127.0.0.1:8080/media/hello.txt)" = ell ] || fail "a range is not served"
}
# Waits until a command succeeds.
until_true() {
  local _
  for _ in $(seq 300); do
    "$@" && return
    sleep 0.1
  done
  fail "never: $*"
}
field() { curl -fsSI http://127.0.0.1:8080/media/hello.txt | tr -d '\r' | sed -n "s/^$1: //ip"; }

step "install: the service starts, and is ready"
dpkg --install first.deb
is_active || fail "the service does not run"
/usr/bin/millpond health || fail "not ready"
id millpond
for file in /usr/bin/millpond /usr/share/man/man1/millpond.1.gz /usr/share/man/man1/millpond-serve.1.gz \
  /usr/share/bash-completion/completions/millpond /usr/share/zsh/vendor-completions/_millpond \
  /usr/share/fish/vendor_completions.d/millpond.fish /etc/millpond/config.toml \
  /usr/share/doc/millpond/examples/millpond.socket; do
  [ -s "$file" ] || fail "$file is not installed"
done
[ "$(stat -c '%U %a' /etc/millpond/config.toml)" = 'root 644' ] || fail "owner or mode of the configuration"
! dpkg --verify millpond | grep . || fail "files differ from the package"
systemctl is-enabled --quiet millpond || fail "the service is not enabled"
! systemctl is-enabled --quiet millpond.socket || fail "the socket is enabled"
echo hello >/var/lib/millpond/hello.txt
serves
curl -fsS http://127.0.0.1:8079/metrics | grep '^millpond_' >/dev/null || fail "no metrics"

step "the process has the rights of the unit"
status=/proc/$(process)/status
grep -E '^(Uid|NoNewPrivs|CapEff|CapBnd|Seccomp):' "$status"
grep -qE "^Uid:.$(id -u millpond)" "$status" || fail "another user"
grep -qE '^NoNewPrivs:.1$' "$status" || fail "it may gain privileges"
grep -qE '^CapEff:.0+$' "$status" || fail "it has capabilities"
grep -qE '^Seccomp:.2$' "$status" || fail "no filter of system calls"

step "reload: a setting changes, and a wrong one changes nothing"
cp /etc/millpond/config.toml config.toml
old=$(process)
printf '[cache]\nfiles = "max-age=7"\n' >>/etc/millpond/config.toml
systemctl reload millpond
until_true eval '[ "$(field cache-control)" = max-age=7 ]'
echo 'no-such-setting = 1' >>/etc/millpond/config.toml
systemctl reload millpond
until_true eval 'journalctl -u millpond | grep "config.toml:.*no-such-setting" >/dev/null'
[ "$(field cache-control) $(process)" = "max-age=7 $old" ] || fail "a wrong setting changed something"

step "a wrong setting ends the start, once"
systemctl restart millpond && fail "it starts with a wrong setting"
[ "$(systemctl show --property=NRestarts,ExecMainStatus --value millpond | xargs)" = '0 2' ] ||
  fail "$(systemctl show --property=NRestarts,ExecMainStatus millpond | xargs)"
cp config.toml /etc/millpond/config.toml
systemctl reset-failed millpond
systemctl start millpond
serves

step "a killed process is started again"
old=$(process)
kill -KILL "$old"
until_true eval 'is_active && [ "$(process)" != "$old" ]'
serves

step "SIGUSR2 writes a report to the unit's folder"
systemctl kill --signal=USR2 --kill-whom=main millpond
until_true eval 'ls /var/log/millpond/* >/dev/null 2>&1'

step "upgrade, with a changed configuration"
echo '# of the operator' >>/etc/millpond/config.toml
old=$(process)
dpkg --install --force-confold second.deb
grep -q 'of the operator' /etc/millpond/config.toml || fail "the configuration was replaced"
is_active && [ "$(process)" != "$old" ] || fail "the new version does not run"
[ "$(dpkg-query -W -f '${Version}' millpond | tail -c 2)" = -2 ] || fail "the version is not the second"
serves

step "socket activation: a restart fails no request"
install -m 0644 /usr/share/doc/millpond/examples/millpond.socket /etc/systemd/system/
systemctl daemon-reload
systemctl stop millpond
systemctl enable --now millpond.socket
systemctl start millpond
(
  requests=0 failed=0
  while [ ! -e over ]; do
    curl -fsS --unix-socket /run/millpond.sock -o /dev/null http://a/media/hello.txt || failed=$((failed + 1))
    requests=$((requests + 1))
    echo "$failed of $requests requests failed" >counting
    mv counting counted
  done
) &
for restart in 1 2 3 4 5; do
  until_true eval "[ -e counted ] && [ \"\$(cut -d ' ' -f 3 counted)\" -ge $((restart * 20)) ]"
  # systemd starts a service no more often than five times in ten seconds.
  systemctl reset-failed millpond
  systemctl restart millpond
done
touch over
wait
cat counted
grep -q '^0 of ' counted || fail "requests failed"
systemctl disable --now --quiet millpond.socket
rm /etc/systemd/system/millpond.socket

step "remove"
dpkg --remove millpond
[ ! -e /usr/bin/millpond ] || fail "the program is still there"
! pgrep -x millpond || fail "the program still runs"
grep -q 'of the operator' /etc/millpond/config.toml || fail "the configuration is gone"
[ -s /var/lib/millpond/hello.txt ] || fail "media is gone"

step "purge"
dpkg --purge millpond
[ ! -e /etc/millpond ] || fail "the configuration is still there"
[ ! -e /var/cache/millpond ] || fail "the cache is still there"
[ -s /var/lib/millpond/hello.txt ] || fail "media is gone"

step "install again, and remove without media"
rm /var/lib/millpond/hello.txt
dpkg --install second.deb
is_active || fail "the service does not run"
dpkg --purge millpond
[ ! -e /var/lib/millpond ] || fail "an empty folder is still there"
echo ok
