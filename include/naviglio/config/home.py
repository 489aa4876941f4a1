"""Where everything lies that a run makes, and where its pipelines are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from naviglio.errors import ConfigError

_UNFIT = re.compile(r"[][\\^|%*?\x00-\x1f\x7f]")  # parts of URLs, or wildcards


@dataclass(frozen=True, kw_only=True)
class Home:
    """The folders of one installation, absolute; none of them needs to exist yet."""

    root: Path
    pipelines: Path
    run_as: str = ""  # who may run as whom, as YAML; empty: `run_as_file` says

    @classmethod
    def find(cls, environ: Mapping[str, str]) -> Home:
        """Take NAVIGLIO_HOME and NAVIGLIO_PIPELINES, or the folders of a checkout.

        ConfigError for a home whose path lake tables can't lie below.
        """
        root = Path(environ.get("NAVIGLIO_HOME") or ".naviglio").expanduser().absolute()
        pipelines = environ.get("NAVIGLIO_PIPELINES") or "include/pipelines"
        if found := _UNFIT.search(str(root)):
            raise ConfigError(
                f"the home {str(root)!r} has a {found[0]!r} in its path, which Delta and DuckDB "
                "don't read as it stands. Choose another folder by NAVIGLIO_HOME."
            )
        return cls(
            root=root,
            pipelines=Path(pipelines).expanduser().absolute(),
            run_as=environ.get("NAVIGLIO_RUN_AS", "").strip(),
        )

    @property
    def landing(self) -> Path:
        """The landings, a folder a pipeline."""
        return self.root / "landing"

    @property
    def lake(self) -> Path:
        """The lake tables."""
        return self.root / "lake"

    @property
    def postgres(self) -> Path:
        """The embedded database cluster."""
        return self.root / "postgres"

    @property
    def connections(self) -> Path:
        """The file of connections that the environment doesn't name; it holds passwords."""
        return self.root / "connections.yaml"

    @property
    def run_as_file(self) -> Path:
        """The file of who may run as whom; whoever runs the installation owns it."""
        return self.root / "run_as.yaml"
