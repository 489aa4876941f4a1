"""The reference of the YAML keeps up with the forms."""

from __future__ import annotations

from pathlib import Path

import pytest

from naviglio.config.pipeline import load_pipeline
from naviglio.config.schema import FORMS, Form, PipelineForm, TableForm, TransformForm, keys_of

PAGE = Path(__file__).parents[3] / "docs/pipelines.md"
FORMS_IN_ORDER = dict.fromkeys([PipelineForm, TableForm, TransformForm, *FORMS.values()])


@pytest.mark.parametrize("form", FORMS_IN_ORDER)
def test_every_key_stands_in_the_reference(form: type[Form]) -> None:
    """A key that can be written is explained in docs/pipelines.md."""
    page = PAGE.read_text("utf-8")
    assert [key for key in keys_of(form) if f"`{key}`" not in page] == []


def test_the_reference_names_every_form() -> None:
    """A new mapping in the YAML must be put on the list that the test above walks."""
    assert set(Form.__subclasses__()) == {PipelineForm, TableForm, TransformForm, *FORMS.values()}


def test_the_example_of_the_reference_is_a_pipeline(tmp_path: Path) -> None:
    """What a reader copies from the page works."""
    example = PAGE.read_text("utf-8").split("```yaml\n")[1].split("```")[0]
    path = tmp_path / "shop.yaml"
    path.write_text(example, "utf-8")
    assert len(load_pipeline(path).tables) == 5
