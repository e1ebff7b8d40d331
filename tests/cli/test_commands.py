"""The commands from end to end on a small real case, and what a run folder holds."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from metaaudit import __version__
from metaaudit.runs.saved import FILES
from tests.small import DATA, QUERIES, SHOTS, WAYS, Case, cli, files, shell, succeeds, write_case

TASK_COLUMNS = (
    "rank,task_id,influence,influence_low,influence_high,influence_spread,influence_z,harmful_q,"
    "harmful,label_noise,noisy_q,contradiction,contradictory_q,outlier_z,outlier_q,duplicates,"
    "kinds,alignment,outer_loss,grad_norm,content"
)
INSTANCE_COLUMNS = (
    "rank,task_id,set,index,instance_id,label,suggested_label,mislabel_score,q_value,mislabeled,"
    "influence,loss"
)
ITEM_COLUMNS = (
    "rank,instance_id,label,suggested_label,occurrences,flagged,mislabel_score,q_value,mislabeled,"
    "influence,content"
)
RUN_FILES = {*FILES}
REPRODUCED = sorted(RUN_FILES - {"manifest.json"})  # the manifest holds times
COMMANDS = ("demo", "init", "validate", "train", "score", "report", "prune")

N_TASKS, N_EVAL = 8, 3
N_INSTANCES = N_TASKS * WAYS * (SHOTS + QUERIES)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def strict_json(path: Path) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{path.name} holds {constant}")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def column(rows: list[dict[str, str]], name: str) -> np.ndarray:
    return np.array([float(row[name]) for row in rows])


@pytest.fixture
def run(scored_case: Case) -> Path:
    return scored_case.run


def test_version_and_help() -> None:
    assert succeeds(cli("--version")).stdout == f"{__version__}\n"
    text = succeeds(cli("--help")).stdout
    for command in COMMANDS:
        assert command in text


@pytest.mark.slow
def test_from_init_to_report(tmp_path: Path) -> None:
    written = succeeds(cli("init", tmp_path / "new"))
    assert written.stdout.strip() == str(tmp_path / "new" / "metaaudit.yaml")
    case = write_case(tmp_path / "case")

    trained = succeeds(shell("train", case.config))
    assert trained.stdout.startswith(f"{case.checkpoint}: 2 epochs, evaluation accuracy 0.")
    assert "train: done in" in trained.stderr

    scored = succeeds(shell("score", "metaaudit.yaml", "--run", "run", cwd=case.folder))
    assert "train-0000" in scored.stdout
    assert "cross-fitting: done in" in scored.stderr

    html = tmp_path / "report.html"
    assert succeeds(cli("report", case.run, "-f", f"html={html}")).stdout.strip() == str(html)
    assert "train-0000" in html.read_text(encoding="utf-8")


def test_validate_says_what_it_found(trained_case: Case) -> None:
    before = files(trained_case.folder)
    lines = succeeds(trained_case.cli("validate")).stdout.splitlines()
    assert lines[0] == (
        f"training tasks: {N_TASKS}, {N_INSTANCES} instances; {WAYS}-way with "
        f"{WAYS * SHOTS} support and {WAYS * QUERIES} query"
    )
    assert lines[1].startswith(f"evaluation tasks: {N_EVAL}, ")
    assert lines[2] == "classes: 16 in training, 7 in evaluation"
    assert "shape [1, 8, 8], values 0 to 1 " in lines[3]
    assert lines[4] == (
        f"labels: {SHOTS} support and {QUERIES} query a class in training, "
        f"{SHOTS} support and {QUERIES} query a class in evaluation"
    )
    n_params = 64 * 8 + 8 + 8 * WAYS + WAYS
    assert lines[5] == f"model: {n_params} parameters in 4 tensors; each instance by itself"
    assert lines[6] == "learner: maml (inner_lr 0.3, steps 2)"
    assert lines[8:10] == ["mapping: 4 tensors by name", "  1.weight -> 1.weight [8, 64]"]
    assert "accuracy" in lines[13] and "chance 0.333" in lines[13]
    assert lines[-1] == "ok"
    assert files(trained_case.folder) == before


def test_validate_warns_of_shared_inputs_and_other_settings(trained_case: Case) -> None:
    shown = succeeds(
        trained_case.cli("validate", "--set", "tasks.eval=train.npz", "--set", "learner.steps=1")
    ).stdout
    assert "inputs are in training and in evaluation tasks" in shown
    assert "learner.steps is 1 but the checkpoint was trained with 2" in shown


@pytest.mark.parametrize("shared", [0, 2])
def test_validate_compares_inputs_and_not_ids(tmp_path: Path, shared: int) -> None:
    case = write_case(tmp_path / "case")
    rng = np.random.default_rng(0)
    for name in ("train", "eval"):
        with np.load(case.folder / f"{name}.npz") as file:
            arrays = dict(file)
        for part in ("support_x", "query_x"):
            arrays[part] = rng.integers(0, 256, arrays[part].shape, dtype=np.uint8)
        if name == "train":
            first = arrays["query_x"][0]
        else:
            arrays["query_x"][1, :shared] = first[:shared]
        kept = {key: array for key, array in arrays.items() if not key.endswith("_id")}
        np.savez(case.folder / f"{name}.npz", **kept)
    succeeds(case.cli("train"))
    shown = succeeds(case.cli("validate")).stdout
    assert ("inputs are in training and in evaluation tasks" in shown) == bool(shared)
    assert (f"warning: {shared} inputs" in shown) == bool(shared)


def test_dry_run_writes_nothing(trained_case: Case, cache_dir: Path) -> None:
    before = files(trained_case.folder.parent)
    lines = succeeds(trained_case.cli("score", "--run", trained_case.run, "--dry-run")).stdout
    assert files(trained_case.folder.parent) == before
    assert "cross-fitting: to compute" in lines

    trained_case.score()
    told = succeeds(trained_case.cli("score", "--run", trained_case.folder / "b", "--dry-run"))
    assert "cross-fitting: from the cache" in told.stdout
    assert not (trained_case.folder / "b").exists()


def test_run_folder_holds_its_files(run: Path) -> None:
    assert set(files(run)) == RUN_FILES
    assert (run / "tasks.csv").read_text().splitlines()[0] == TASK_COLUMNS
    assert (run / "instances.csv").read_text().splitlines()[0] == INSTANCE_COLUMNS
    assert (run / "items.csv").read_text().splitlines()[0] == ITEM_COLUMNS


def test_tasks_are_ranked_most_harmful_first(run: Path) -> None:
    rows = table(run / "tasks.csv")
    assert [int(row["rank"]) for row in rows] == list(range(1, N_TASKS + 1))
    assert sorted(row["task_id"] for row in rows) == [f"train-{i:04d}" for i in range(N_TASKS)]
    assert (np.diff(column(rows, "influence")) <= 0).all()
    assert (column(rows, "grad_norm") > 0).all()
    for row in rows:
        assert row["harmful"] in ("true", "false")
        assert 0 <= float(row["label_noise"]) <= 1


def test_instances_are_ranked_most_suspicious_first(run: Path) -> None:
    rows = table(run / "instances.csv")
    assert [int(row["rank"]) for row in rows] == list(range(1, N_INSTANCES + 1))
    scores = column(rows, "mislabel_score")
    assert (np.diff(scores) <= 0).all()
    assert ((scores >= 0) & (scores <= 1)).all()
    places = {(row["task_id"], row["set"], int(row["index"])) for row in rows}
    assert places == {
        (f"train-{task:04d}", name, index)
        for task in range(N_TASKS)
        for name, size in (("support", WAYS * SHOTS), ("query", WAYS * QUERIES))
        for index in range(size)
    }
    for row in rows:
        assert row["instance_id"].startswith("digits/")
        assert 0 <= int(row["label"]) < WAYS
        assert 0 <= int(row["suggested_label"]) < WAYS
        assert row["mislabeled"] == "false" or row["suggested_label"] != row["label"]


def test_scores_hold_what_the_tables_show(run: Path) -> None:
    tasks = {row["task_id"]: row for row in table(run / "tasks.csv")}
    instances = {
        (row["task_id"], row["set"], int(row["index"])): row for row in table(run / "instances.csv")
    }
    with h5py.File(run / "scores.h5") as file:
        ids = [text.decode() for text in file["task_ids"][()]]
        influence = file["task_influence"][()]
        assert influence.shape == (N_TASKS, N_EVAL)
        assert influence.dtype == np.float64
        assert [text.decode() for text in file["eval_ids"][()]] == [
            f"eval-{i:04d}" for i in range(N_EVAL)
        ]
        for task_id, mean in zip(ids, influence.mean(axis=1), strict=True):
            assert float(tasks[task_id]["influence"]) == mean
        group = file["instances"]
        order = [
            (ids[task], ("support", "query")[part], int(index))
            for task, part, index in zip(group["task"], group["set"], group["index"], strict=True)
        ]
        assert set(order) == set(instances)
        for name in ("influence", "mislabel_score", "loss", "suggested_label"):
            shown = [float(instances[place][name]) for place in order]
            np.testing.assert_array_equal(group[name][()], shown, err_msg=name)
        datasets: list[h5py.Dataset] = []
        file.visititems(
            lambda _, item: datasets.append(item) if isinstance(item, h5py.Dataset) else None
        )
        assert all(dataset.fletcher32 for dataset in datasets)
        assert file.attrs["complete"]


@pytest.mark.parametrize(("dtype", "rtol"), [("float32", 1e-5), ("float64", 1e-10)])
def test_query_influences_of_a_task_add_up_to_its_own(
    trained_case: Case, dtype: str, rtol: float
) -> None:
    run = trained_case.score("run", "--set", f"compute.dtype={dtype}")
    instances = table(run / "instances.csv")
    influence = {row["task_id"]: float(row["influence"]) for row in table(run / "tasks.csv")}
    sums = dict.fromkeys(influence, 0.0)
    for row in instances:
        if row["set"] == "query":
            sums[row["task_id"]] += float(row["influence"])
    largest = max(abs(value) for value in influence.values())
    for task_id, value in influence.items():
        assert math.isclose(sums[task_id], value, rel_tol=rtol, abs_tol=rtol * largest), task_id


def test_loss_of_a_task_is_the_mean_of_its_queries(run: Path) -> None:
    instances = table(run / "instances.csv")
    for task in table(run / "tasks.csv"):
        losses = [
            float(row["loss"])
            for row in instances
            if row["task_id"] == task["task_id"] and row["set"] == "query"
        ]
        # float32 losses, averaged in float32 in one place and in float64 in the other
        assert math.isclose(float(task["outer_loss"]), np.mean(losses), rel_tol=1e-6)


def test_findings_and_manifest_are_json_without_nan(run: Path) -> None:
    findings = strict_json(run / "findings.json")
    flagged = [row for row in table(run / "instances.csv") if row["mislabeled"] == "true"]
    harmful = [row for row in table(run / "tasks.csv") if row["harmful"] == "true"]
    items = table(run / "items.csv")
    counts = findings["counts"]
    assert findings["schema_version"] == 2
    assert (counts["tasks"], counts["instances"], counts["items"]) == (
        N_TASKS,
        N_INSTANCES,
        len(items),
    )
    assert counts["mislabeled_instances"] == len(flagged)
    assert counts["flagged"]["harmful"] == len(harmful)
    mislabeled = [row["instance_id"] for row in items if row["mislabeled"] == "true"]
    assert [
        one["subject"]
        for one in findings["findings"]
        if one["rule"] == "mislabeled" and one["flagged"]
    ] == mislabeled
    manifest = strict_json(run / "manifest.json")
    assert manifest["config"]["influence"]["curvature"] == "sampled-fisher"
    (checkpoint,) = manifest["checkpoints"]
    assert len(checkpoint["sha256"]) == 64
    assert manifest["coverage"] == {
        "tasks": N_TASKS,
        "instances": N_INSTANCES,
        "items": len(items),
        "eval_tasks": N_EVAL,
    }
    assert {target["status"] for target in manifest["solver"]["targets"]} == {"converged"}
    assert manifest["solver"]["converged"] is True
    assert set(manifest["timings_s"]) >= {"load", "gradients", "solve", "cross-fitting"}
    assert manifest["peak_memory_mb"] > 0


def test_two_runs_are_identical_byte_by_byte(
    trained_case: Case, run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = trained_case.score("first")
    monkeypatch.setenv("METAAUDIT_CACHE_DIR", str(tmp_path / "another-cache"))
    second = trained_case.score("second")
    assert strict_json(second / "manifest.json")["cache"]["gradients"]["status"] == "computed"
    for name in REPRODUCED:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
        assert (first / name).read_bytes() == (run / name).read_bytes(), name


@pytest.mark.parametrize("curvature", ["task-fisher", "exact"])
def test_scores_do_not_depend_on_the_task_batch(
    trained_case: Case, curvature: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found: dict[int, dict[str, np.ndarray]] = {}
    for batch in (10, 1, 3):
        monkeypatch.setenv("METAAUDIT_CACHE_DIR", str(tmp_path / f"cache-{batch}"))
        options = (f"compute.task_batch={batch}", f"influence.curvature={curvature}")
        settings = (*options, "compute.dtype=float64", "influence.tolerance=1e-12")
        if curvature == "exact":
            settings += ("influence.damping=10", "influence.targets=mean")
        run = trained_case.score(str(batch), *[part for s in settings for part in ("--set", s)])
        with h5py.File(run / "scores.h5") as file:
            found[batch] = {
                name: file[name][()]
                for name in ("task_influence", "instances/influence", "instances/signal")
            }
    for batch in (1, 3):
        for name, values in found[10].items():
            largest = np.abs(values).max()
            # Float64 sums in another order; CG stops at a residual of 1e-12.
            np.testing.assert_allclose(
                found[batch][name], values, rtol=1e-8, atol=1e-10 * largest, err_msg=name
            )


def test_targets_mean_gives_the_same_influence_in_one_column(trained_case: Case, run: Path) -> None:
    mean = trained_case.score("mean", "--set", "influence.targets=mean")
    with h5py.File(mean / "scores.h5") as one, h5py.File(run / "scores.h5") as each:
        assert one["eval_ids"][()].tolist() == [b"mean"]
        expected = each["task_influence"][()].mean(axis=1, keepdims=True)
        # The solve is linear; the evaluation gradients are float32.
        np.testing.assert_allclose(one["task_influence"][()], expected, rtol=1e-4, atol=1e-7)


def test_solver_that_stops_early_is_reported(trained_case: Case) -> None:
    options = ("influence.curvature=exact", "influence.damping=1", "influence.max_iterations=1")
    outcome = trained_case.cli(
        "score", "--run", trained_case.run, *[part for s in options for part in ("--set", s)]
    )
    assert succeeds(outcome).stderr.count("warning:") >= 1
    manifest = strict_json(trained_case.run / "manifest.json")
    assert manifest["solver"]["converged"] is False
    assert manifest["warnings"]
    assert strict_json(trained_case.run / "findings.json")["warnings"] == manifest["warnings"]


def test_report_in_every_format(run: Path, tmp_path: Path) -> None:
    paths = {fmt: tmp_path / "out" / f"report.{fmt}" for fmt in ("html", "md", "json", "csv")}
    options = [part for fmt, path in paths.items() for part in ("-f", f"{fmt}={path}")]
    before = files(run)
    shown = succeeds(cli("report", run, *options)).stdout
    assert shown.split() == [str(path) for path in paths.values()]
    assert files(run) == before
    worst = table(run / "tasks.csv")[0]["task_id"]
    for path in paths.values():
        assert worst in path.read_text(encoding="utf-8"), path.name
    assert strict_json(paths["json"])
    assert len(table(paths["csv"])) == N_TASKS + N_INSTANCES + len(table(run / "items.csv"))
    html = paths["html"].read_text(encoding="utf-8")
    assert "data:image/png" in html
    assert 'src="http' not in html


@pytest.mark.skipif(not Path("/dev/fd/1").exists(), reason="no /dev/fd here")
def test_report_on_standard_output_is_the_report_alone(run: Path, tmp_path: Path) -> None:
    succeeds(cli("report", run, "-f", f"md={tmp_path / 'report.md'}"))
    shown = succeeds(shell("report", run, "-f", "md=/dev/fd/1")).stdout
    assert shown == (tmp_path / "report.md").read_text(encoding="utf-8")
    both = shell("report", run, "-f", "md=/dev/fd/1", "-f", f"json={tmp_path / 'report.json'}")
    assert succeeds(both).stdout == shown
    assert both.stderr.strip().endswith("report.json")


def test_two_reports_need_two_files(run: Path, tmp_path: Path) -> None:
    both = ("-f", f"md={tmp_path / 'a'}", "-f", f"json={tmp_path / 'x' / '..' / 'a'}")
    outcome = cli("report", run, *both)
    assert outcome.exit_code == 2
    assert "is named twice" in outcome.error
    assert not (tmp_path / "a").exists()


def test_report_without_a_format_prints_tables(run: Path) -> None:
    shown = succeeds(cli("report", run))
    assert table(run / "tasks.csv")[0]["task_id"] in shown.stdout
    assert shown.stderr == ""


def test_scientific_notation_is_a_number(trained_case: Case) -> None:
    text = trained_case.config.read_text(encoding="utf-8")
    trained_case.config.write_text(text + "influence: {damping: 1e-3}\n", encoding="utf-8")
    run = trained_case.score()
    assert strict_json(run / "manifest.json")["solver"]["damping"] == 0.001


@pytest.mark.skipif(
    not (DATA / "omniglot").is_dir(),
    reason=f"no Omniglot at {DATA / 'omniglot'} (set METAAUDIT_DATA)",
)
def test_omniglot_from_train_to_score(tmp_path: Path) -> None:
    tasks = {
        "format": "omniglot",
        "root": str((DATA / "omniglot").resolve()),
        "image": {"size": 14, "invert": True},
        "episode": {"ways": 3, "shots": 2, "queries": 2},
        "train": {"tasks": 5, "classes": 20},
        "eval": {"tasks": 2},
    }
    model = {"name": "conv4", "hidden": 4, "in_channels": 1, "ways": 3}
    case = write_case(tmp_path / "case", {"tasks": tasks, "model": model, "training.epochs": 1})
    succeeds(case.cli("train"))
    run = case.score()
    rows = table(run / "instances.csv")
    assert len(rows) == 5 * 3 * 4
    assert all(row["instance_id"].count("/") == 2 for row in rows)
    assert {row["task_id"] for row in rows} == {f"train-s0-{i:05d}" for i in range(5)}
    assert strict_json(run / "manifest.json")["data"]["train"]["format"] == "omniglot"
