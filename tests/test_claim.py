"""Who may train in a run directory: nobody beside another process, with another config or on other data."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mixer_jax import claim as claim_module
from mixer_jax import data, training
from mixer_jax.claim import claim, require_same_data, require_usable
from mixer_jax.errors import UserError
from mixer_jax.records import Epoch, StepMetrics
from mixer_jax.run_directory import RunDirectory
from support import make_config, make_dataset


def test_config_is_kept_as_it_was(tmp_path):
    run, config = RunDirectory(tmp_path / "a" / "run"), make_config(dataset__image_size=(3, 4))
    require_usable(run, config)
    assert not run.path.exists()
    with run.locked():
        claim(run, config, {"mean": (0.5,)})
    assert require_usable(run, config) == {}
    assert run.config().to_dict() == config.to_dict()
    assert run.dataset_info() == {"mean": [0.5]}


def test_another_config_is_refused_field_by_field(tmp_path):
    run = RunDirectory(tmp_path)
    claim(run, make_config(), {})
    run.append_metrics(Epoch(epoch=1, step=30))
    changed = make_config(seed=3, model__hidden_dim=9)
    fields = r"model.hidden_dim: 8 in the run, 9 now; seed: 0 in the run, 3 now"
    with pytest.raises(UserError, match=rf"another config \({fields}\)"):
        require_usable(run, changed)
    with pytest.raises(UserError, match=r"another config \(model.hidden_dim: 8 in the run, 9 now; seed"):
        claim(run, changed, {})  # by one that came in between
    require_usable(run, changed, overwrite=True)


def test_a_run_that_was_stopped_before_it_saved_anything_may_be_given_another_config_and_other_data(tmp_path):
    run, seed = RunDirectory(tmp_path), RunDirectory(tmp_path / "seed_0")
    seed.path.mkdir()
    for one in (run, seed):
        claim(one, make_config(epochs=2.0), {"fingerprint": "a"})
        one.append_steps([StepMetrics(1, 2.0, 50.0, 1.0, 0.1, 100.0)])  # not enough to resume from
    changed = make_config(epochs=3.0, batch_size=7)
    assert require_usable(run, changed) == {}
    claim(run, changed, {"fingerprint": "b"})
    assert (run.config().batch_size, run.dataset_info(), run.extended) == (7, {"fingerprint": "b"}, [])
    (seed.checkpoints / "10").mkdir(parents=True)  # of a run with several seeds
    with pytest.raises(UserError, match="another config .batch_size: 7 in the run, 64 now"):
        require_usable(run, make_config(epochs=3.0))


def test_the_config_of_weights_is_not_replaced(tmp_path):
    run, content = RunDirectory(tmp_path), '{"architecture": "mixer_b16_224", "num_classes": 10}'
    run.config_file.write_text(content)
    (tmp_path / "model.safetensors").write_bytes(b"")
    for act in (lambda: require_usable(run, make_config()), lambda: claim(run, make_config(), {})):
        with pytest.raises(UserError, match="cannot read .*config.json"):
            act()
    assert run.config_file.read_text() == content


def test_a_run_does_not_go_on_with_other_data(tmp_path):
    run = RunDirectory(tmp_path)
    claim(run, make_config(), {"fingerprint": "a", "mean": (0.1,)})
    run.append_metrics(Epoch(epoch=1, step=30))
    claim(run, make_config(), {"fingerprint": "a", "mean": (0.1,)})
    with pytest.raises(UserError, match=r"was trained on other data \(digits: fingerprint differs\): choose"):
        claim(run, make_config(), {"fingerprint": "b", "mean": (0.1,)})


def test_other_data_in_another_folder_names_both(tmp_path):
    run = RunDirectory(tmp_path)
    claim(run, make_config(dataset__data_dir="/a"), {"fingerprint": "a", "streamed": False})
    moved = make_config(dataset__data_dir="/b")
    require_same_data(run, moved, {"fingerprint": "a", "streamed": False})
    with pytest.raises(UserError, match=r"fingerprint differs; data_dir: was /a, now /b\): choose another"):
        require_same_data(run, moved, {"fingerprint": "b", "streamed": False})


def test_a_run_that_was_extended_says_so_where_that_makes_another_run(tmp_path):
    then = [{"step": 30, "epochs": 2.0}]
    for schedule, until, warmup, told in (
        ("cosine", 1.0, 0.0, then),
        ("constant", 0.8, 0.0, then),
        ("constant", 1.0, 2.0, then),  # a warmup that was shortened, as the run was no longer
        ("constant", 1.0, 1.5, []),
        ("constant", 1.0, 0.0, []),
    ):
        run = RunDirectory(tmp_path / f"{schedule}_{until}_{warmup}")
        fields = {"schedule__name": schedule, "augment__mixing__until": until, "schedule__warmup_epochs": warmup}
        with run.locked():
            claim(run, make_config(**fields), {})
            claim(run, make_config(**fields, epochs=3.0), {})  # before its first step
            claim(run, make_config(**fields), {})
            run.append_metrics(Epoch(epoch=1, step=30))
            claim(run, make_config(**fields, early_stopping_patience=3), {})
            run.results_file.write_text('{"epochs": 1.0, "steps": 30}')
            claim(run, make_config(**fields, early_stopping_patience=4), {})  # which sets the results aside
            assert [file.name for file in run.path.glob("results*")] == ["results.old1.json"]
            assert run.extended == []
            claim(run, make_config(**fields, epochs=4.0, early_stopping_patience=3), {})
        assert run.extended == told


def test_a_crash_while_a_finished_run_is_extended_leaves_it_to_be_extended(tmp_path, monkeypatch):
    run = RunDirectory(tmp_path)
    claim(run, make_config(epochs=2.0), {})
    run.results_file.write_text("{}")
    monkeypatch.setattr(claim_module, "write_json", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        claim(run, make_config(epochs=3.0), {})
    monkeypatch.undo()
    assert not run.results_file.exists()
    claim(run, make_config(epochs=3.0), {})
    assert (run.config().epochs, run.results_file.exists()) == (3.0, False)


def test_a_run_of_an_older_release_was_extended_where_it_kept_earlier_results(tmp_path):
    run = RunDirectory(tmp_path)
    claim(run, make_config(epochs=4.0), {})
    content = json.loads(run.config_file.read_text())
    del content["extended"]
    run.config_file.write_text(json.dumps(content))
    (tmp_path / "results.old1.json").write_text('{"epochs": 2.0, "steps": 60}')
    assert run.extended == [{"step": 60, "epochs": 2.0}]


def test_a_run_of_an_older_release_holds_out_as_it_did(tmp_path):
    run = RunDirectory(tmp_path)
    claim(run, make_config(), {})
    content = json.loads(run.config_file.read_text())
    assert run.newer_fields() == {}
    del content["config"]["dataset"]["hold_out"]
    run.config_file.write_text(json.dumps(content))
    assert run.config().dataset.hold_out == "random"
    assert run.adopted(make_config()).dataset.hold_out == "random"
    assert require_usable(run, run.adopted(make_config())) == {}
    content["config"]["a.b"] = 1
    run.config_file.write_text(json.dumps(content))
    with pytest.raises(UserError, match="cannot read .*config.json: .*dots in field names"):
        require_usable(run, run.adopted(make_config()))


def test_a_run_of_an_older_release_lacks_what_was_not_kept_then_but_no_fingerprint(tmp_path):
    run, info = RunDirectory(tmp_path), make_dataset().info()
    claim(run, make_config(), {key: info[key] for key in info if key not in ("bits", "num_images")})
    require_same_data(run, make_config(), info)
    (other := tmp_path / "other").mkdir()
    claim(RunDirectory(other), make_config(), {key: info[key] for key in info if key != "fingerprint"})
    with pytest.raises(UserError, match="trained on other data .*fingerprint differs"):
        require_same_data(RunDirectory(other), make_config(), info)


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"dataset.on_error": "skp"}, "unknown config.dataset.on_error 'skp' .did you mean 'skip'"),
        ({"dataset.resize": "bilinaer"}, "unknown config.dataset.resize"),
        ({"augment.flip": "vertical"}, "unknown config.augment.flip 'vertical'"),
        ({"augment.erasing.fill": "blck"}, "unknown config.augment.erasing.fill"),
        ({"model.variant": "Nanoo/4"}, "unknown model variant 'Nanoo/4'"),
        ({"model.gelu": "fast"}, "unknown config.model.gelu 'fast'"),
        ({"optimizer.name": "adamm"}, "unknown config.optimizer.name 'adamm' .did you mean 'adam"),
        ({"optimizer.name": "lion", "optimizer.momentum": 0.9}, "config.optimizer.momentum: lion has no momentum"),
        ({"schedule.name": "cos"}, "unknown config.schedule.name 'cos'"),
    ],
)
def test_a_typing_error_is_told_before_data_is_read_or_runs_are_compared(fields, line, tmp_path, monkeypatch):
    claim(RunDirectory(tmp_path), make_config(), {})
    config = make_config()
    config.update_from_flattened_dict(fields)
    monkeypatch.setattr(data, "load", None)
    with pytest.raises(UserError, match=line):
        training.train(config, tmp_path)


def test_a_set_is_streamed_to_the_end_or_not_at_all(tmp_path):
    run, kept = RunDirectory(tmp_path), {"streamed": False, "fingerprint": "1"}
    claim(run, make_config(), kept)
    run.append_metrics(Epoch(epoch=1, step=30))
    with pytest.raises(UserError, match="was not streamed: .* give a larger config.dataset.memory_budget_gib"):
        claim(run, make_config(), {"streamed": True, "fingerprint": "2"})
    roomy = make_config(dataset__memory_budget_gib=1.0)
    assert list(require_usable(run, roomy)) == ["dataset.memory_budget_gib"]
    claim(run, roomy, kept)


@pytest.mark.parametrize("left", [".partial.config.json", ".config.json.partial"])
def test_a_first_start_that_was_killed_leaves_a_free_directory(left, tmp_path):
    (tmp_path / left).write_text("{")
    assert require_usable(RunDirectory(tmp_path), make_config()) == {}


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_something_else_is_never_touched(tmp_path, overwrite):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match=r"holds other files \(thesis.tex, ...\): choose another workdir"):
        require_usable(RunDirectory(tmp_path), make_config(), overwrite)
    assert RunDirectory(tmp_path).set_aside() is None


def test_a_run_with_a_seed_in_training_is_neither_used_nor_moved(tmp_path):
    """The seed alone is in training, as when it is extended in its own directory."""
    run = RunDirectory(tmp_path / "run")
    run.path.mkdir()
    claim(run, make_config(num_seeds=2), {})
    (run.path / "seed_1").mkdir()
    program = "import fcntl; file = open('.lock', 'w'); fcntl.flock(file, fcntl.LOCK_EX); print(flush=True); input()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    seed = subprocess.Popen([sys.executable, "-c", program], cwd=run.path / "seed_1", **pipes)
    seed.stdout.readline()
    try:
        held = "seed_1 is in use by another process: wait"
        for act in (lambda: require_usable(run, make_config(num_seeds=2), overwrite=True), run.set_aside):
            with pytest.raises(UserError, match=held):
                act()
    finally:
        seed.communicate(b"\n")
    assert run.set_aside() == tmp_path / "run.old1"


def test_the_current_folder_is_not_moved_aside(tmp_path, monkeypatch):
    run = RunDirectory(tmp_path / "run")
    run.path.mkdir()
    claim(run, make_config(), {})
    (run.path / "inside").mkdir()
    for folder, path in ((run.path, "."), (run.path / "inside", ".."), (run.path / "inside", run.path)):
        monkeypatch.chdir(folder)
        with pytest.raises(UserError, match="holds the current directory, and cannot be moved aside: go to another"):
            require_usable(RunDirectory(path), make_config(), overwrite=True)
        require_usable(RunDirectory(path), make_config())


def test_a_finished_run_need_not_be_writable(tmp_path, monkeypatch):
    run = RunDirectory(tmp_path)
    claim(run, make_config(), {})
    monkeypatch.setattr(claim_module.os, "access", lambda *_: False)
    with pytest.raises(UserError, match="is not writable"):
        require_usable(run, make_config())
    run.results_file.write_text("{}")
    assert require_usable(run, make_config()) == {}
    for config, overwrite in ((make_config(epochs=3.0), False), (make_config(), True)):
        with pytest.raises(UserError, match="is not writable"):
            require_usable(run, config, overwrite)


def test_a_workdir_may_begin_with_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert RunDirectory("~/run").path == tmp_path / "run"
    assert RunDirectory("~nobody-here/run").path == Path("~nobody-here/run")


def test_a_workdir_that_cannot_be_looked_at(tmp_path):
    run = RunDirectory(tmp_path / ("x" * 300))
    assert not run.exists
    assert run.newer_fields() == {}
    with pytest.raises(UserError, match="cannot use workdir .*: File name too long"):
        require_usable(run, make_config())


def test_a_workdir_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(UserError, match=r"workdir .* is not writable|cannot use workdir .*: Not a directory"):
            require_usable(RunDirectory(path), make_config())
        with pytest.raises(UserError, match=r"workdir .* is not writable \((Not a directory|File exists)\)"):
            RunDirectory(path).locked().__enter__()


def test_a_damaged_config_is_named(tmp_path):
    (tmp_path / "config.json").write_text('{"config": ')
    with pytest.raises(UserError, match=r"cannot read .*config.json: Expecting value"):
        require_usable(RunDirectory(tmp_path), make_config())
