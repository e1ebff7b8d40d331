"""The template is complete, valid and equal to the defaults."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from metaaudit.config import load_config, template_text, write_template
from metaaudit.config.evaluate import EXPERIMENTS
from metaaudit.config.influence import InnerConfig
from metaaudit.config.section import Section
from metaaudit.config.strict_yaml import parse_yaml
from metaaudit.config.tasks import FORMATS, EpisodesConfig, TrainSplitConfig
from metaaudit.errors import ConfigError, RunError


def sections(below: type[Section] = Section) -> list[type[Section]]:
    """All kinds of sections, as far as ``Config`` can hold them."""
    return [kind for one in below.__subclasses__() for kind in (one, *sections(one))]


SECTIONS = sorted(sections(), key=lambda section: section.__name__)


def defaults(section: Section) -> None:
    """Checks each value below ``section`` against its default; required keys have none."""
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if type(section) is TrainSplitConfig and name == "classes":
            continue  # whether it is needed depends on the data set
        if isinstance(value, Section):
            defaults(value)
        elif not field.is_required():
            assert value == field.get_default(call_default_factory=True), (
                f"{type(section).__name__}.{name}"
            )


def test_template_equals_the_defaults(tmp_path: Path) -> None:
    path = write_template(tmp_path / "new")
    assert path.read_text(encoding="utf-8") == template_text()
    defaults(load_config(path))


@pytest.mark.parametrize("section", SECTIONS)
def test_template_names_every_key(section: type[Section]) -> None:
    for name in section.model_fields:
        assert re.search(rf"^[# ]*{name}: *", template_text(), re.MULTILINE), name


@pytest.mark.parametrize(
    "kind",
    [
        "name: mlp",
        "name: l2l-omniglot-fc",
        "name: l2l-omniglot-cnn",
        "name: l2l-cnn4",
        "name: l2l-resnet12",
        "name: torchmeta-conv4",
        "name: maml-pytorch-omniglot",
        "factory:",
        "name: anil",
        "name: imaml",
        "name: protonet",
        "name: ridge",
        *(f"format: {name}" for name in FORMATS if name not in ("omniglot", "labelled")),
    ],
)
def test_commented_alternatives_are_valid(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("\n".join(chosen(template_text().splitlines(), kind)), encoding="utf-8")
    defaults(load_config(path))


def test_the_alternatives_for_labelled_data_are_valid_together(tmp_path: Path) -> None:
    lines = chosen(template_text().splitlines(), "name: none")
    lines = chosen(lines, "format: labelled")
    path = tmp_path / "c.yaml"
    path.write_text("\n".join(lines), encoding="utf-8")
    signal = "mislabel.signal=loss"
    with pytest.raises(ConfigError, match=r"mislabel\.signal: combined is for learners that adapt"):
        load_config(path)
    defaults(load_config(path, [signal]).tasks)


def chosen(lines: list[str], kind: str) -> list[str]:
    """The template with a commented section in place of the one that is not commented."""
    start = next(i for i, line in enumerate(lines) if line.startswith(f"#   {kind}")) - 1
    section = lines[start].removeprefix("# ")
    first = lines.index(section)
    last = next(i for i in range(first + 1, len(lines)) if not lines[i].startswith("  "))
    block = [lines[start]]
    for line in lines[start + 1 :]:
        if not line.startswith("#   "):
            break
        block.append(line)
    return [*lines[:first], *(line.removeprefix("# ") for line in block), *lines[last:]]


def task_blocks() -> list[str]:
    """The sections ``tasks``, of which all but the first are comments."""
    blocks: list[list[str]] = []
    inside = False
    for line in template_text().splitlines():
        bare = line.removeprefix("# ")
        inside = bare == "tasks:" or (inside and bare.startswith("  "))
        if bare == "tasks:":
            blocks.append([])
        if inside:
            blocks[-1].append(bare)
    return ["\n".join(block) for block in blocks]


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_has_all_its_keys(name: str) -> None:
    """As every block is read by itself, keys of another format do not count."""
    (block,) = (block for block in task_blocks() if f"\n  format: {name} " in block)
    keys = parse_yaml(block, "block").value["tasks"]
    wanted = FORMATS[name].model_fields
    assert set(keys) == set(wanted)
    for key, field in wanted.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            assert set(keys[key]) == set(field.annotation.model_fields), key


def test_the_keys_of_joined_tasks_are_valid(tmp_path: Path) -> None:
    (block,) = (block for block in task_blocks() if "\n  format: episodes " in block)
    block = re.sub(r"^  joined: null.*\n", "", block, flags=re.MULTILINE)
    block = re.sub(r"^  # (?=joined:|  shots:|  order:)", "  ", block, flags=re.MULTILINE)
    path = tmp_path / "c.yaml"
    path.write_text(f"model: {{name: mlp}}\nlearner: {{name: protonet}}\ncheckpoint: c.pt\n{block}")
    tasks = load_config(path).tasks
    assert isinstance(tasks, EpisodesConfig)
    assert tasks.joined is not None
    assert tasks.joined.model_fields_set == {"shots", "order"}
    defaults(tasks.joined)


def with_commented_keys() -> str:
    """The template with the keys that are commented within a section."""
    return re.sub(r"^  # (?= *\w+: )", "  ", template_text(), flags=re.MULTILINE)


def test_commented_keys_equal_the_defaults_and_are_all_there(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(with_commented_keys(), encoding="utf-8")
    config = load_config(path)
    defaults(config)
    inner = config.influence.inner
    assert inner.model_fields_set == set(type(inner).model_fields)


def test_commented_keys_are_valid_for_what_they_belong_to(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(with_commented_keys(), encoding="utf-8")
    config = load_config(path, ["influence.derivative=implicit"])
    assert config.influence.inner == InnerConfig()


def test_commented_experiments_are_those_by_default(tmp_path: Path) -> None:
    before, experiments = template_text().split("#   experiments:\n")
    block, after = experiments.split("\n\n", 1)
    path = tmp_path / "c.yaml"
    own = re.sub("^# ", "", f"#   experiments:\n{block}", flags=re.MULTILINE)
    path.write_text(f"{before}{own}\n\n{after}", encoding="utf-8")
    found = load_config(path).evaluate.experiments
    assert [one.kind for one in found] == list(EXPERIMENTS)
    for one in found:
        if one.kind != "agreement":  # which has no defaults
            assert one == EXPERIMENTS[one.kind].model_validate({"kind": one.kind})
        assert one.model_fields_set == set(type(one).model_fields)


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
