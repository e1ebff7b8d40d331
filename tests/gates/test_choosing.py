"""The gate that the command line chooses, and findings as a person names them."""

from __future__ import annotations

from pathlib import Path

import pytest

from metaaudit.config.gate import GateConfig, RuleGate
from metaaudit.errors import RunError, UsageError
from metaaudit.gates import chosen_gate, rule_gates, saved_gate, select
from tests.gates.made_up import finding, run_of
from tests.run_folder import write_run

CONFIGURED = GateConfig(harmful=RuleGate(max_count=3), noisy=RuleGate(fdr=0.01))


@pytest.mark.parametrize(
    ("fail_on", "rules"),
    [
        ([], {"harmful": RuleGate(max_count=3), "noisy": RuleGate(fdr=0.01)}),
        (["harmful"], {"harmful": RuleGate(max_count=3)}),
        (["mislabeled"], {"mislabeled": RuleGate()}),
        (
            ["mislabeled, harmful", "outlier"],
            {
                "harmful": RuleGate(max_count=3),
                "mislabeled": RuleGate(),
                "outlier": RuleGate(),
            },
        ),
        (["none"], {}),
    ],
)
def test_fail_on(fail_on: list[str], rules: dict[str, RuleGate]) -> None:
    assert rule_gates(chosen_gate(CONFIGURED, fail_on)) == rules


@pytest.mark.parametrize(
    ("fail_on", "message"),
    [
        (["mislabelled"], "'mislabelled' is no rule.*did you mean 'mislabeled'"),
        (["HARMFUL"], "did you mean 'harmful'"),
        (["harmful,"], "'' is no rule"),
        (["harmful", "none"], "'none' is no rule"),
    ],
)
def test_fail_on_of_no_rule(fail_on: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        chosen_gate(CONFIGURED, fail_on)


def test_files_replace_the_configured_ones() -> None:
    configured = CONFIGURED.model_copy(
        update={"baseline": Path("/a.json"), "suppressions": Path("/a.yaml")}
    )
    assert chosen_gate(configured) == configured
    chosen = chosen_gate(configured, ["noisy"], Path("b.json"))
    assert (chosen.baseline, chosen.suppressions) == (Path("b.json"), Path("/a.yaml"))
    chosen = chosen_gate(configured, [], None, Path("b.yaml"))
    assert (chosen.baseline, chosen.suppressions) == (Path("/a.json"), Path("b.yaml"))


@pytest.mark.parametrize("option", ["baseline", "suppressions"])
def test_a_file_that_no_gate_reads_is_refused(option: str) -> None:
    with pytest.raises(UsageError, match=f"--{option} b: is not used"):
        chosen_gate(GateConfig(), [], **{option: Path("b")})


def test_saved_gate(tmp_path: Path) -> None:
    assert saved_gate(write_run(tmp_path / "without")) == GateConfig()
    chosen = CONFIGURED.model_copy(update={"baseline": Path("/a.json")})
    run = write_run(tmp_path / "with", gate=chosen.model_dump(mode="json"))
    assert saved_gate(run) == chosen
    with pytest.raises(RunError, match=r"manifest\.json: holds no gate"):
        saved_gate(write_run(tmp_path / "bad", gate={"harmful": {"fdr": 2}}))


A, B = finding("image-1"), finding("image-1", rule="harmful")


@pytest.mark.parametrize("name", ["image-1", A.fingerprint, A.fingerprint[:8]])
def test_select(name: str) -> None:
    run = run_of(A, finding("image-2"), finding("image-3", 0.2))
    assert select(run, [name]) == [A]
    assert select(run, [name, A.fingerprint, name]) == [A]
    assert [one.subject for one in select(run, ["image-3", name])] == ["image-3", "image-1"]


def test_select_takes_repeated_findings_for_one() -> None:
    one, other = finding("a", None, "duplicate"), finding("b", None, "duplicate", same_as="a")
    assert select(run_of(one, other), [one.fingerprint[:10]]) == [one]


def test_select_by_rule() -> None:
    run = run_of(B, A)
    assert select(run, ["image-1"], "mislabeled") == [A]
    with pytest.raises(RunError, match=r"fits 2: harmful 'image-1' \(.*, mislabeled 'image-1'"):
        select(run, ["image-1"])
    with pytest.raises(RunError, match="none of the run's 0 noisy findings"):
        select(run, ["image-1"], "noisy")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (A.fingerprint[:7], "is none of the run's 2 findings"),
        (A.fingerprint[:8].upper(), "is none"),
        ("image-11", "did you mean 'image-1'"),
        ("", "is none"),
        ("f" * 65, "is none"),
    ],
)
def test_select_of_nothing(name: str, message: str) -> None:
    with pytest.raises(RunError, match=message):
        select(run_of(A, finding("other")), [name])


def test_an_ambiguous_prefix_shows_a_few() -> None:
    many = [
        finding(f"x{row}").model_copy(update={"fingerprint": f"{row:x}".rjust(64, "0")})
        for row in range(7)
    ]
    with pytest.raises(RunError, match=r"fits 7: .*'x4' \(0{12}\) and 2 more"):
        select(run_of(*many), ["00000000"])
