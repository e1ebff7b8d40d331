"""``metaaudit validate`` of several configurations, as a commit hook calls it."""

from __future__ import annotations

from tests.small import Case, cli, succeeds


def test_each_configuration_is_named_and_validated(trained_case: Case) -> None:
    other = trained_case.folder / "other.yaml"
    other.write_bytes(trained_case.config.read_bytes())
    lines = succeeds(cli("validate", trained_case.config, other)).stdout.splitlines()
    half = len(lines) // 2
    assert lines[0] == f"{trained_case.config}:"
    assert lines[half] == f"{other}:"
    assert lines[1:half] == lines[half + 1 :]
    assert lines[-1] == "ok"

    other.write_text("model: 1", encoding="utf-8")
    outcome = cli("validate", trained_case.config, other)
    assert outcome.exit_code == 2
    assert "other.yaml" in outcome.error


def test_one_contact_sheet_is_of_one_configuration(trained_case: Case) -> None:
    sheet = trained_case.folder / "sheet.png"
    configs = (trained_case.config, trained_case.config)
    outcome = cli("validate", *configs, "--contact-sheet", sheet)
    assert outcome.exit_code == 2
    assert "one configuration" in outcome.error
    assert not sheet.exists()
