"""The template is complete, valid and equal to the defaults."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from metaaudit.config import load_config, schema, template_text, write_template
from metaaudit.config.schema import Section
from metaaudit.errors import RunError

SECTIONS = sorted(
    (
        item
        for item in vars(schema).values()
        if isinstance(item, type) and issubclass(item, Section) and item is not Section
    ),
    key=lambda section: section.__name__,
)


def defaults(section: Section) -> None:
    """Checks each value below ``section`` against its default; required keys have none."""
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if not field.is_required():
            assert value == field.default, f"{type(section).__name__}.{name}"
        elif isinstance(value, Section):
            defaults(value)


def test_template_equals_the_defaults(tmp_path: Path) -> None:
    path = write_template(tmp_path / "new")
    assert path.read_text(encoding="utf-8") == template_text()
    defaults(load_config(path))


@pytest.mark.parametrize("section", SECTIONS)
def test_template_names_every_key(section: type[Section]) -> None:
    for name in section.model_fields:
        assert re.search(rf"^[# ]*{name}: *", template_text(), re.MULTILINE), name


@pytest.mark.parametrize("kind", ["name: mlp", "factory:", "format: episodes"])
def test_commented_alternatives_are_valid(tmp_path: Path, kind: str) -> None:
    lines = template_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"#   {kind}")) - 1
    section = lines[start].removeprefix("# ")
    first = lines.index(section)
    last = next(i for i in range(first + 1, len(lines)) if not lines[i].startswith("  "))
    block = [lines[start]]
    for line in lines[start + 1 :]:
        if not line.startswith("#   "):
            break
        block.append(line)
    replaced = [*lines[:first], *(line.removeprefix("# ") for line in block), *lines[last:]]
    path = tmp_path / "c.yaml"
    path.write_text("\n".join(replaced), encoding="utf-8")
    defaults(load_config(path))


def with_commented_keys() -> str:
    """The template with the keys that are commented within a section."""
    return re.sub(r"^  # (?= *\w+: )", "  ", template_text(), flags=re.MULTILINE)


def test_commented_keys_equal_the_defaults_and_are_all_there(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(with_commented_keys(), encoding="utf-8")
    config = load_config(path)
    defaults(config)
    for section in (config.learner, config.influence.inner):
        assert section.model_fields_set == set(type(section).model_fields)


def test_commented_keys_are_valid_for_what_they_belong_to(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(with_commented_keys(), encoding="utf-8")
    asked = ["learner.name=imaml", "learner.proximity=1.0", "influence.derivative=implicit"]
    config = load_config(path, asked)
    assert config.learner.proximity == 1.0
    assert config.influence.inner == schema.InnerConfig()


def test_template_is_never_overwritten(tmp_path: Path) -> None:
    path = write_template(tmp_path)
    path.write_text("mine")
    with pytest.raises(RunError, match="exists already"):
        write_template(tmp_path)
    assert path.read_text() == "mine"
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_configuration_and_task_sets_need_no_torch() -> None:
    code = "import sys, metaaudit.config, metaaudit.inputs.tasks; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
