"""Checks the chart by Helm's own code: lint, a rendering for each set of values, and values that must be refused.

Usage: check.py DIR. Each rendering becomes a file of DIR, for kubernetes-validate.
"""

import sys
from pathlib import Path

import helm_python as helm

CHART = Path(__file__).parent / "millpond"

# Values that are rendered, by the name of their file. `monitor` has a resource of the Prometheus operator, whose schema
# kubernetes-validate does not have.
RENDERED = {
    "defaults": {},
    "all": {
        "autoscaling": {"enabled": True},
        "config": 'mount-path = "/"',
        "env": [{"name": "MILLPOND_TRUSTED_PROXY", "value": "10.0.0.0/8"}],
    },
    "origin": {
        "replicas": 3,
        "origin": {
            "url": "s3://media/films",
            "endpoint": "http://garage.storage.svc:3900",
            "secretName": "millpond-origin",
            "ports": [3900],
        },
        "cache": {"sizeGiB": 20},
    },
    "monitor": {"podMonitor": {"enabled": True}},
}

# Values that the schema refuses.
REFUSED = [
    {"memory": {"limitMiB": 1}},
    {"service": {"port": "eighty"}},
    {"origin": {"url": "/srv/media"}},
    {"cache": {"sizeGiB": 0}},
]


def main(folder: Path) -> None:
    """Checks the chart, and writes the renderings into a folder."""
    for values in RENDERED.values():
        report = helm.lint(CHART, values, strict=True)
        warning = 2
        found = [message["error"] for message in report["messages"] if message["severity"] >= warning]
        if found or report["errors"]:
            sys.exit(f"helm lint: {found or report['errors']}")
    with helm.Chart.load(CHART) as chart:
        for name, values in RENDERED.items():
            manifests = chart.render(values, name="media", namespace="media")
            documents = [text for path, text in manifests.items() if path.endswith(".yaml") and text.strip()]
            (folder / f"{name}.yaml").write_text("\n---\n".join(documents))
        for values in REFUSED:
            try:
                chart.render(values)
            except helm.HelmValuesError:
                continue
            sys.exit(f"values.schema.json lets a wrong value pass: {values}")
    print(f"{len(RENDERED)} renderings by Helm {helm.helm_sdk_version()}, {len(REFUSED)} refusals")


main(Path(sys.argv[1]))
