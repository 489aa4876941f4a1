"""From a scheme to its adapter."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest

from naviglio.connections.connections import Connections
from naviglio.connections.registry import ADAPTERS, open_source, open_target
from naviglio.errors import ConfigError


@pytest.mark.parametrize("open_it", [open_source, open_target])
@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("postgrsql://a:s3cret@b/c", "no adapter for scheme 'postgrsql'; known: postgresql"),
        ("host=db password=s3cret", "a URL without a scheme; known: postgresql, postgres"),
        ("postgresql://a:p@s3cret@h:5432/d", "more than one `@`. If the password holds one"),
    ],
)
def test_a_url_that_leads_nowhere_is_told(open_it: type, url: str, told: str) -> None:
    """The answer names the connection and what to write, never the URL."""
    with pytest.raises(ConfigError) as raised:
        open_it("shop", Connections({"NAVIGLIO_CONN_SHOP": url}, None))
    assert told in str(raised.value)
    assert "connection 'shop'" in str(raised.value)
    assert "s3cret" not in str(raised.value)


def test_every_adapter_of_the_registry_can_be_found() -> None:
    """Each line names a package that is there."""
    assert [name for name in ADAPTERS.values() if importlib.util.find_spec(name) is None] == []


def test_the_registry_imports_no_adapter() -> None:
    """A vendor's driver is paid for by whoever opens one of its connections."""
    code = (
        "import sys, naviglio.connections.registry; "
        "print([m for m in sys.modules if m.startswith(('naviglio.adapters', 'psycopg', 'adbc'))])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert run.stdout.strip() == "[]"
