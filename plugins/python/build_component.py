"""Puts the component into what is built: copied from the host, or from the source distribution's own copy."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CopyComponent(BuildHookInterface):  # type: ignore[type-arg]
    """The hook of hatchling."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Adds the component; an editable install finds the host's by itself."""
        if version == "editable":
            return
        root = Path(self.root)
        packaged = "src/millpond/media-serve.wasm"
        for found in (root.parent.parent / "host/millpond/component/media-serve.wasm", root / packaged):
            if found.is_file():
                target = packaged if self.target_name == "sdist" else "millpond/media-serve.wasm"
                build_data["force_include"][str(found)] = target
                return
        raise FileNotFoundError("there is no host/millpond/component/media-serve.wasm to build from")
