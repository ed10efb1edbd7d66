"""The run directory refuses what is not its own, and never leaves half a file."""

import json

import pytest

from mixer_jax.errors import UserError
from mixer_jax.records import Epoch, Results, best_epoch
from mixer_jax.run_directory import RunDirectory
from support import make_config


def test_config_is_kept_as_it_was(tmp_path):
    run, config = RunDirectory(tmp_path / "a" / "run"), make_config(dataset__image_size=(3, 4))
    run.check(config)
    assert not run.path.exists()
    with run.locked():
        run.claim(config, {"mean": (0.5,)})
    assert run.check(config) == {}
    assert run.config().to_dict() == config.to_dict()
    assert run.dataset_info() == {"mean": [0.5]}


def test_another_config_is_refused_field_by_field(tmp_path):
    run = RunDirectory(tmp_path)
    run.claim(make_config(), {})
    changed = make_config(seed=3, model__hidden_dim=9)
    with pytest.raises(UserError, match=r"another config \(model.hidden_dim: 8 there, 9 here; seed: 0 there, 3 here\)"):
        run.check(changed)
    with pytest.raises(UserError, match=r"another config \(model.hidden_dim: 8 there, 9 here; seed"):
        run.claim(changed, {})  # by one that came in between
    run.check(changed, overwrite=True)


def test_a_run_does_not_go_on_with_other_data(tmp_path):
    run = RunDirectory(tmp_path)
    run.claim(make_config(), {"fingerprint": "a", "mean": (0.1,)})
    run.claim(make_config(), {"fingerprint": "a", "mean": (0.1,)})
    with pytest.raises(UserError, match=r"a run on other data than digits is now \(its fingerprint\): choose another"):
        run.claim(make_config(), {"fingerprint": "b", "mean": (0.1,)})


def test_other_data_in_another_folder_names_both(tmp_path):
    run = RunDirectory(tmp_path)
    run.claim(make_config(dataset__data_dir="/a"), {"fingerprint": "a", "streamed": False})
    moved = make_config(dataset__data_dir="/b")
    run.check_data(moved, {"fingerprint": "a", "streamed": False})
    with pytest.raises(UserError, match=r"\(its fingerprint; it was in /a, and is /b now\): choose another"):
        run.check_data(moved, {"fingerprint": "b", "streamed": False})


def test_a_run_that_was_extended_says_so_where_that_makes_another_run(tmp_path):
    for schedule, told in (("cosine", [{"step": 30, "epochs": 2.0}]), ("constant", [])):
        run = RunDirectory(tmp_path / schedule)
        with run.locked():
            run.claim(make_config(schedule__name=schedule), {})
            run.claim(make_config(schedule__name=schedule, epochs=3.0), {})  # before its first step
            run.claim(make_config(schedule__name=schedule), {})
            run.append_metrics(Epoch(epoch=1, step=30))
            run.claim(make_config(schedule__name=schedule, early_stopping_patience=3), {})
            assert run.extended == []
            run.claim(make_config(schedule__name=schedule, epochs=4.0, early_stopping_patience=3), {})
        assert run.extended == told


def test_a_run_of_an_older_release_was_extended_where_it_kept_earlier_results(tmp_path):
    run = RunDirectory(tmp_path)
    run.claim(make_config(epochs=4.0), {})
    (tmp_path / "results.old1.json").write_text('{"epochs": 2.0, "steps": 60}')
    assert run.extended == [{"step": 60, "epochs": 2.0}]


def test_a_run_of_an_older_release_holds_out_as_it_did(tmp_path):
    run = RunDirectory(tmp_path)
    run.claim(make_config(), {})
    content = json.loads(run.config_file.read_text())
    assert run.newer_fields() == {}
    del content["config"]["dataset"]["hold_out"]
    run.config_file.write_text(json.dumps(content))
    assert run.config().dataset.hold_out == "random"
    assert run.adopted(make_config()).dataset.hold_out == "random"
    assert run.check(run.adopted(make_config())) == {}


def test_a_set_is_streamed_to_the_end_or_not_at_all(tmp_path):
    run, kept = RunDirectory(tmp_path), {"streamed": False, "fingerprint": "1"}
    run.claim(make_config(), kept)
    with pytest.raises(UserError, match="was not streamed: .* give a larger config.dataset.memory_budget_gib"):
        run.claim(make_config(), {"streamed": True, "fingerprint": "2"})
    roomy = make_config(dataset__memory_budget_gib=1.0)
    assert list(run.check(roomy)) == ["dataset.memory_budget_gib"]
    run.claim(roomy, kept)


def test_a_first_start_that_was_killed_leaves_a_free_directory(tmp_path):
    (tmp_path / ".config.json.partial").write_text("{")
    assert RunDirectory(tmp_path).check(make_config()) == {}


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_something_else_is_never_touched(tmp_path, overwrite):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match=r"holds other files \(thesis.tex, ...\): choose another workdir"):
        RunDirectory(tmp_path).check(make_config(), overwrite)
    assert RunDirectory(tmp_path).set_aside() is None


def test_a_workdir_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(UserError, match=r"workdir .* is not writable|cannot use workdir .*: Not a directory"):
            RunDirectory(path).check(make_config())
        with pytest.raises(UserError, match=r"workdir .* is not writable \((Not a directory|File exists)\)"):
            RunDirectory(path).locked().__enter__()


def test_a_damaged_config_is_named(tmp_path):
    (tmp_path / "config.json").write_text('{"config": ')
    with pytest.raises(UserError, match=r"cannot read .*config.json: Expecting value"):
        RunDirectory(tmp_path).check(make_config())


def test_metrics_are_rewound(tmp_path):
    run = RunDirectory(tmp_path)
    for epoch in (1, 2, 3):
        run.append_metrics(Epoch(epoch=epoch, step=10 * epoch, train_loss=0.1 + 0.2))
    with run.metrics_file.open("a") as file:
        file.write('{"epoch": 4, "st')
    assert [r.epoch for r in run.read_metrics()] == [1, 2, 3]
    with run.metrics_file.open("ab") as file:
        file.write(b"\n\xff\n")
    assert len(run.read_metrics()) == 3
    run.write_metrics(run.read_metrics()[:2])
    assert [json.loads(line)["step"] for line in run.metrics_file.read_text().splitlines()] == [10, 20]
    assert run.read_metrics()[0].train_loss == 0.1 + 0.2


def results(test_accuracy):
    return Results(
        dataset="digits", model="Pico/2", num_params=9, epochs=2.0, best_epoch=1, val_accuracy=90.0, val_loss=0.5,
        train_seconds=1.0, selected_on="validation", devices=1, device_kind="cpu", dtype="float32", versions={},
        data_fingerprint="a", test_accuracy=test_accuracy, cautions=[],
    )  # fmt: skip


def test_results_appear_whole_or_not_at_all(tmp_path, monkeypatch):
    run = RunDirectory(tmp_path)
    run.write_results(results(1.0))

    def full_disk(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(UserError, match=r"cannot write .*results.json: No space left on device"):
        run.write_results(results(2.0))
    assert run.read_results() == results(1.0)


def test_the_best_epoch_is_the_most_accurate_and_of_equals_the_one_with_the_lowest_loss():
    scores = [(90.0, 0.5), (95.0, 0.4), (95.0, 0.3), (95.0, 0.3), (94.0, 0.1)]
    history = [Epoch(epoch=i, step=i, val_accuracy=a, val_loss=b) for i, (a, b) in enumerate(scores, 1)]
    assert best_epoch(history).epoch == 3
    assert best_epoch(history[:2]).epoch == 2
