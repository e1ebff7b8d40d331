"""The JSON Schema that is published for ``findings.json``.

To write it anew, send what ``python -m tests.reports.test_json_schema`` prints to
``metaaudit/findings/findings.schema.json``.
"""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from metaaudit.findings import Findings
from tests.run_folder import write_run

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def published() -> str:
    return resources.files("metaaudit.findings").joinpath("findings.schema.json").read_text("utf-8")


def of_the_model() -> str:
    schema = {"$schema": DIALECT, **Findings.model_json_schema(), "title": "findings.json"}
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"


def validator() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json.loads(published()))


def written(folder: Path) -> dict[str, Any]:
    write_run(folder)
    found = json.loads((folder / "findings.json").read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def test_it_is_up_to_date() -> None:
    assert published() == of_the_model()


def test_it_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(json.loads(published()))


def test_a_written_file_is_valid(tmp_path: Path) -> None:
    validator().validate(written(tmp_path / "run"))


def test_a_file_without_findings_is_valid(tmp_path: Path) -> None:
    write_run(tmp_path / "run", [], [])
    found = json.loads((tmp_path / "run" / "findings.json").read_text(encoding="utf-8"))
    assert found["findings"] == []
    validator().validate(found)


@pytest.mark.parametrize(
    ("key", "value"),
    [("rule", "nasty"), ("fingerprint", "123"), ("score", None), ("unheard_of", 1)],
)
def test_another_file_is_not(tmp_path: Path, key: str, value: object) -> None:
    found = written(tmp_path / "run")
    found["findings"][0][key] = value
    with pytest.raises(jsonschema.ValidationError):
        validator().validate(found)


if __name__ == "__main__":
    print(of_the_model(), end="")
