"""Reading configurations: what is accepted, and the one line that anything else gives."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, get_args

import pytest

from metaaudit.config import Config, load_config, template_text, write_template
from metaaudit.config.influence import SOLVERS, InfluenceConfig
from metaaudit.config.model import FactoryConfig
from metaaudit.config.strict_yaml import parse_yaml
from metaaudit.config.tasks import OmniglotConfig
from metaaudit.errors import ConfigError

MINIMAL = """\
model: {name: mlp}
learner: {name: maml, inner_lr: 0.4, steps: 3}
checkpoint: w.pt
tasks: {format: episodes, train: a.npz, eval: b.npz}
"""


def sampled(keys: str) -> str:
    """Overrides the tasks by ones of Omniglot with these keys."""
    tail = "" if "eval:" in keys else ", eval: {tasks: 1}"
    return f"tasks={{format: omniglot, root: d, train: {{tasks: 1}}, {keys}{tail}}}"


SCALARS = [
    ("1e-3", 0.001),
    ("1E5", 100000.0),
    (".5", 0.5),
    ("-2.", -2.0),
    ("010", 10),
    ("0x1f", 31),
    ("true", True),
    ("no", "no"),
    ("on", "on"),
    ("1:30", "1:30"),
    ("1_000", "1_000"),
    ("2020-01-01", "2020-01-01"),
    ("~", None),
    ("'5'", "5"),
    ("<<", "<<"),
]

BAD_OVERRIDES = [
    ("influence.dampng=1", ["influence.dampng: unknown key", "did you mean 'damping'?"]),
    ("trainng.epochs=1", ["trainng: unknown key", "did you mean 'training'?"]),
    ("influence.damping=x", ["got 'x'", "'auto' or a number"]),
    ("influence.damping=-1", ["got -1", "'auto' or a number of at least 0"]),
    ("influence.solver=cg", ["'cg' does not solve curvature 'sampled-fisher'"]),
    ("influence={curvature: ggn, probes: 4}", ["probes is for curvature 'sampled-fisher'"]),
    ("influence.fdr=1", ["got 1", "a number of at most 0.25"]),
    ("learner.name=mml", ["got 'mml'", "did you mean 'maml'?"]),
    ("learner.name=imaml", ["learner.proximity: is missing"]),
    ("learner.proximity=1", ["learner.proximity: unknown key", "name, inner_lr, steps"]),
    ("learner={inner_lr: 1, steps: 1}", ["does not say of which kind it is", "name: maml|fomaml"]),
    ("learner={name: protonet, steps: 1}", ["learner.steps: unknown key", "name, head"]),
    ("influence.derivative=implicite", ["'unrolled' or 'implicit'", "did you mean 'implicit'?"]),
    ("influence.inner.inverse=ggn", ["inner is for derivative 'implicit'"]),
    ("influence.inner.invers=ggn", ["influence.inner.invers: unknown key", "'inverse'?"]),
    ("influence.inner.inverse=kfac", ["'ekfac', 'ggn', 'cg' or 'dense'"]),
    ("influence.inner.basis=each", ["'task' or 'shared'"]),
    ("influence.inner.proximity=0", ["'auto' or a number above 0"]),
    ("influence.fisher=false", ["got false", "'true' or 'empirical'"]),
    ("influence.fisher=mc", ["got 'mc'", "'true' or 'empirical'"]),
    ("influence.curvature=fisher", ["did you mean 'task-fisher'?"]),
    ("influence.preconditioner=kfac", ["did you mean 'ekfac'?"]),
    ("learner={name: maml, inner_lrr: 1, steps: 1}", ["inner_lrr", "'inner_lr'?", "(and 1 more)"]),
    ("learner.inner_lr=.inf", ["got inf", "a finite number"]),
    ("training.epochs='5'", ["training.epochs: got '5'", "a whole number"]),
    ("training.epochs=true", ["got true", "a whole number"]),
    ("training.epochs=2.0", ["got 2.0", "a whole number"]),
    ("training.lr=true", ["got true", "a number"]),
    ("training=", ["got nothing", "a section of keys and values"]),
    ("model={}", ["name: conv4|mlp|l2l", "or factory: module:callable"]),
    ("model.name=conv5", ["model.name: got 'conv5'", "did you mean 'conv4'?"]),
    ("model=3", ["model: got 3", "a section"]),
    ("model.hidden=[1, a]", ["model.hidden.1: got 'a'"]),
    ("model={factory: nocolon}", ["model.factory: got 'nocolon'", "module:callable"]),
    ("model.statistics=moving", ["model.statistics: got 'moving'", "'batch' or 'running'"]),
    ("model={name: l2l-cnn}", ["model.name: got 'l2l-cnn'", "did you mean 'l2l-cnn4'?"]),
    ("model={name: l2l-cnn4, layers: 5}", ["model.layers: got 5"]),
    ("model={name: l2l-omniglot-fc, hidden: 64}", ["model.hidden: unknown key", "sizes, ways"]),
    ("model={name: l2l-omniglot-fc, sizes: []}", ["model.sizes: got []"]),
    ("model={name: l2l-resnet12, hidden: 64}", ["model.hidden: unknown key"]),
    (
        "tasks.format=omni",
        [
            "tasks.format: got 'omni'",
            "omniglot|idx|",
            "|episodes|factory",
            "did you mean 'omniglot'?",
        ],
    ),
    ("tasks={format: episodes}", ["tasks.train: is missing", "(and 1 more)"]),
    (sampled("rotations: [45]"), ["tasks.rotations.0: got 45", "90, 180 or 270"]),
    (sampled("rotations: [90, 180, 90]"), ["tasks: rotations names a turn twice"]),
    (sampled("eval: {tasks: 1, split: a, images: 0.5}"), ["tasks.eval: split and images are two"]),
    (sampled("eval: {tasks: 1, images: 1}"), ["tasks.eval.images: got 1", "a number below 1"]),
    (sampled("image: {size: 0}"), ["tasks.image.size: got 0", "a number above 0"]),
    (sampled("image: {colour: red}"), ["tasks.image.colour: got 'red'", "'grey' or 'rgb'"]),
    (sampled("image: {mean: 0.5}"), ["tasks.image.mean: got 0.5", "a list"]),
    (sampled("image: {std: [0.5, 0]}"), ["tasks.image.std.1: got 0", "a number above 0"]),
    (sampled("image: {mean: [1, 2]}"), ["image.mean has 2 numbers for colour 'grey'; expected 1"]),
    (sampled("image: {mean: [1, 2, 3], colour: grey}"), ["mean has 3 numbers"]),
    (
        sampled("image: {std: [1, 2], colour: rgb}"),
        ["image.std has 2 numbers for colour 'rgb'; expected 1 or 3"],
    ),
    ("tasks.image.invert=yes", ["tasks.image.invert: got 'yes'", "true or false"]),
    ("checkpoint=[]", ["checkpoint: got []", "at least 1 of them"]),
    ("gate.harmful={fdr: 2}", ["gate.harmful.fdr: got 2", "a number of at most 0.25"]),
    ("gate.harmful.max=2", ["gate.harmful.max: unknown key", "fdr, max_count, max_fraction"]),
    ("mislabel.signal=los", ["got 'los'", "did you mean 'loss'?"]),
    ("mislabel.steps=0", ["mislabel.steps: got 0"]),
    ("gate={noisy: }", ["noisy is named without a value; write noisy: {}"]),
    ("gate={noisy: {fdr: 0.25}}", ["noisy.fdr is 0.25, above release 0.2"]),
    ("evaluate.jobs=0", ["evaluate.jobs: got 0", "a number above 0"]),
    ("evaluate.experiments=[]", ["got []", "at least 1 of them"]),
    ("evaluate.experiments=[3]", ["experiments.0: got 3", "a section of keys and values"]),
    ("evaluate.experiments=[{}]", ["experiments.0: does not say of which kind", "kind: lds|"]),
    ("evaluate.experiments=[{kind: ldss}]", ["0.kind: got 'ldss'", "did you mean 'lds'?"]),
    ("evaluate.experiments=[{kind: lds, sed: 2}]", ["experiments.0.sed: unknown key", "'seed'?"]),
    (
        "evaluate.experiments=[{kind: drift}, {kind: editing, fractions: [0.1, 2]}]",
        ["evaluate.experiments.1.fractions.1: got 2", "a number below 1"],
    ),
    (
        "evaluate.experiments=[{kind: lds, candidates: [{name: x, checkpoints: 0}]}]",
        ["evaluate.experiments.0.candidates.0.checkpoints: got 0"],
    ),
    ("evaluate.experiments=[{kind: agreement}]", ["experiments.0.reference: is missing"]),
    (
        "evaluate.experiments=[{kind: lds, candidates: [{name: x}, {name: x}]}]",
        ["two candidates of 'lds' have one name"],
    ),
    ("model.name.x=1", ["model.name is a value, not a section"]),
    ("no-equals", ["--set section.key=value"]),
    ("=3", ["--set section.key=value"]),
    ("training.seed=[1", ["cannot be read as YAML"]),
    ("training.seed=!!python/object/apply:os.getcwd []", ["not supported"]),
    ('checkpoint="\\ud800"', ["'\\ud800' is no valid str"]),
    ('checkpoint="a\\0b"', ["'a\\x00b' is no valid str"]),
]

BAD_COMBINATIONS = [
    (
        "influence.derivative=implicit influence.inner.inverse=ggn influence.inner.basis=shared",
        "basis 'shared' is for inverse 'ekfac', not 'ggn'",
    ),
    (
        "learner.name=imaml learner.proximity=1 influence.derivative=implicit "
        "influence.inner.proximity=2",
        "influence.inner.proximity is that of the learner imaml; change learner.proximity",
    ),
    ("learner.name=fomaml learner.proximity=1", "learner.proximity: unknown key"),
    ("learner.name=anil influence.derivative=implicit", "is for the learners maml and imaml"),
    ("influence.curvature=jacobian", "jacobian is for the learners fomaml and reptile"),
    ("learner.name=reptile influence.curvature=exact", "use learner.name: maml"),
    ("learner.name=imaml learner.proximity=0", "a number above 0"),
    ("influence.curvature=ekfac influence.solver=cg", "expected one of auto, ekfac"),
    ("influence.curvature=ggn influence.solver=dual", "expected one of auto, cg, neumann, dense"),
    (
        "influence.curvature=exact influence.solver=ekfac",
        "'ekfac' does not solve curvature 'exact'",
    ),
    ("influence.preconditioner=ekfac", "preconditioner 'ekfac' is for solver 'cg'"),
    ("influence.preconditioner=ekfac influence.curvature=ekfac", "is for solver 'cg'"),
    (
        "influence.preconditioner=ekfac influence.curvature=exact influence.solver=dense",
        "is for solver 'cg'",
    ),
    (
        "influence.preconditioner=ekfac influence.curvature=exact influence.method=dot",
        "is for solver 'cg'",
    ),
]

GOOD_COMBINATIONS = [
    "learner.name=imaml learner.proximity=0.5 learner.tolerance=1e-6",
    "learner.name=anil learner.head=classifier",
    "learner.name=reptile influence.solver=gmres",
    "influence.derivative=implicit influence.inner.inverse=ggn influence.inner.proximity=2",
    "influence.derivative=implicit influence.inner.basis=shared influence.fisher=empirical",
    "influence.curvature=ekfac influence.solver=ekfac",
    "influence.curvature=exact influence.preconditioner=ekfac",
    "influence.curvature=gamma influence.solver=neumann influence.preconditioner=ekfac",
]

BAD_FILES = [
    (MINIMAL + "checkpoint: x\n", [":5: ", "'checkpoint' is there twice"]),
    (MINIMAL + "training: {seed: 1, seed: 2}\n", [":5: ", "'seed' is there twice"]),
    (MINIMAL + "mislabel:\n  folds: 5\n  fold: 5\n", [":7: mislabel.fold: unknown key"]),
    (MINIMAL + "mislabel: &a {folds: 5}\n", [":5: ", "anchors and aliases"]),
    (MINIMAL + "mislabel: *a\n", [":5: ", "anchors and aliases"]),
    (MINIMAL + "1: 2\n", [":5: ", "a key is not text"]),
    (MINIMAL + "---\na: 1\n", ["another document"]),
    (MINIMAL + "a: " + "[" * 5000, ["nested too deeply"]),
    (MINIMAL + "a: " + "1" * 5000 + "\n", [":5: ", "is no valid int"]),
    (MINIMAL + "a: !!python/name:os.system\n", [":5: ", "not supported"]),
    (MINIMAL.replace("checkpoint: w.pt", ""), ["checkpoint: is missing"]),
    ("", ["is empty"]),
    ("- a\n", ["holds no keys and values"]),
    ("a: \x01\n", ["cannot be read as YAML"]),
]


def write(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text)
    return path


def check_message(error: ConfigError, parts: list[str]) -> None:
    message = str(error)
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize(("text", "value"), SCALARS)
def test_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    found = parse_yaml(f"key: {text}", "f").value["key"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(("override", "parts"), BAD_OVERRIDES)
def test_bad_override_gives_one_line(tmp_path: Path, override: str, parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, MINIMAL), [override])
    check_message(caught.value, parts)


@pytest.mark.parametrize(("overrides", "part"), BAD_COMBINATIONS)
def test_what_does_not_go_together_gives_one_line(
    tmp_path: Path, overrides: str, part: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, MINIMAL), overrides.split())
    check_message(caught.value, [part])


@pytest.mark.parametrize("overrides", GOOD_COMBINATIONS)
def test_what_goes_together_is_read(tmp_path: Path, overrides: str) -> None:
    config = load_config(write(tmp_path, MINIMAL), overrides.split())
    for override in overrides.split():
        dotted, _, value = override.partition("=")
        found: Any = config
        for name in dotted.split("."):
            found = getattr(found, name)
        assert found == parse_yaml(f"key: {value}", "f").value["key"]


@pytest.mark.parametrize("curvature", SOLVERS)
def test_each_curvature_takes_its_solvers_and_no_other(tmp_path: Path, curvature: str) -> None:
    path = write(tmp_path, MINIMAL)
    learner = ["learner.name=fomaml"] if curvature == "jacobian" else []
    accepted = set()
    for solver in get_args(InfluenceConfig.model_fields["solver"].annotation):
        with contextlib.suppress(ConfigError):
            load_config(
                path, [*learner, f"influence.curvature={curvature}", f"influence.solver={solver}"]
            )
            accepted.add(solver)
    assert accepted == set(SOLVERS[curvature])


@pytest.mark.parametrize("name", ["fomaml", "reptile"])
def test_a_learner_that_follows_a_field_has_its_jacobian(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, MINIMAL + "influence: {fdr: 0.1}\n")
    assert load_config(path).influence.curvature == "sampled-fisher"
    influence = load_config(path, [f"learner.name={name}"]).influence
    assert (influence.curvature, influence.fdr) == ("jacobian", 0.1)


@pytest.mark.parametrize(
    ("text", "value"), [("true", "true"), ("'true'", "true"), ("empirical", "empirical")]
)
def test_true_is_a_fisher_matrix_with_and_without_quotes(
    tmp_path: Path, text: str, value: str
) -> None:
    path = write(tmp_path, MINIMAL + f"influence: {{fisher: {text}}}\n")
    assert load_config(path).influence.fisher == value


@pytest.mark.parametrize("override", ["influence.dampng=1", "model.name=conv5", "training.lr=a"])
def test_override_is_named_as_the_origin(tmp_path: Path, override: str) -> None:
    with pytest.raises(ConfigError, match=f"^--set {override}: "):
        load_config(write(tmp_path, template_text()), [override])


@pytest.mark.parametrize(("text", "parts"), BAD_FILES)
def test_bad_file_gives_one_line(tmp_path: Path, text: str, parts: list[str]) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    check_message(caught.value, [str(path), *parts])


def test_missing_folder_and_binary_files(tmp_path: Path) -> None:
    binary = tmp_path / "b.yaml"
    binary.write_bytes(b"a: \xff")
    cases = {tmp_path / "no.yaml": "No such file", tmp_path: "directory", binary: "UTF-8"}
    for path, part in cases.items():
        with pytest.raises(ConfigError, match=part):
            load_config(path)


def test_numbers_with_exponents_and_overrides(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL + "training: {lr: 1e-3}\n")
    config = load_config(path, ["training.weight_decay=1", "influence.tolerance=1E-5"])
    assert config.training.lr == 0.001
    assert config.training.weight_decay == 1.0
    assert config.influence.tolerance == 1e-5


def test_relative_paths_start_at_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL)
    config = load_config(path, ["checkpoint=../up/./w.pt", "model={factory: 'a:b', path: src}"])
    folder = tmp_path.resolve()
    assert config.checkpoint == folder.parent / "up" / "w.pt"
    assert isinstance(config.model, FactoryConfig)
    assert config.model.path == folder / "src"
    assert load_config(path, ["checkpoint=/abs/w.pt"]).checkpoint == Path("/abs/w.pt")
    tasks = load_config(path, [sampled("splits: s.csv")]).tasks
    assert isinstance(tasks, OmniglotConfig)
    assert [tasks.root, tasks.splits] == [folder / "d", folder / "s.csv"]


def test_config_round_trips_through_json(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, template_text()))
    assert Config.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize("learner", ["{name: ridge}", "{name: protonet}"])
def test_steps_are_for_learners_that_take_steps(tmp_path: Path, learner: str) -> None:
    path = write_template(tmp_path)
    load_config(path, [f"learner={learner}"])
    with pytest.raises(ConfigError, match=r"mislabel\.steps is for the learners maml, fomaml"):
        load_config(path, [f"learner={learner}", "mislabel.steps=auto"])
