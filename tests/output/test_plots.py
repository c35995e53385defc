"""What the figures show: the numbers of the history, under names that tell the runs apart."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from PIL import Image

from vidcvae import config as settings
from vidcvae.config import schema
from vidcvae.errors import DataError, UsageError
from vidcvae.output import figures, plots, terminal
from vidcvae.storage import durable
from vidcvae.storage.run import RunFolder
from vidcvae.training.schedules import Length


def _run(name: str = "run-001", epochs: int = 2, **sections: dict[str, Any]) -> plots.Run:
    """A history of 4 steps an epoch; losses are sums over the 15 predicted frames of a clip."""
    config = settings.resolve({"training": {"epochs": epochs}}, sections)
    history: list[plots.Record] = []
    for step in range(1, 4 * epochs + 1):
        epoch = (step - 1) // 4
        record = {
            "step": step,
            "epoch": epoch,
            "total": 15.0 * (20 - step),
            "reconstruction": 15.0 / step,
            "kl": 30.0,
            "beta": 0.25,
            "teacher_forcing": 0.5,
            "forced": float(epoch % 2),
            "lr": 1e-3,
            "predicted": 15.0,
        }
        history.append({"kind": "step", **record})
        if step % 4 == 0:
            history.append({"kind": "epoch", **record})
            history.append(
                {
                    "kind": "validation",
                    "step": step,
                    "epoch": epoch,
                    # the first epoch is the better one
                    "psnr_zero": 25.0 - epoch,
                    "psnr_zero_per_frame": [26.0 - epoch, 24.0 - epoch],
                    "psnr_prior": 20.0,
                    "psnr_prior_per_frame": [21.0, 19.0],
                    "baseline_copy_first_psnr": 16.0,
                }
            )
    return plots.Run(name, config, history)


def _line(panel: plots.Panel, label: str) -> plots.Line:
    return next(line for line in panel.lines if line.label.startswith(label))


def test_the_loss_is_drawn_per_frame_over_epochs_with_beta_and_forcing_beneath() -> None:
    loss, beta, forcing = plots.loss_chart([_run()]).panels
    total = _line(loss, "total")
    assert loss.log
    assert list(total.x) == [0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0]
    assert list(total.y) == [19, 18, 17, 16, 15, 14, 13, 12]
    assert set(beta.lines[0].y) == {0.25}
    assert set(_line(forcing, "ratio").y) == {0.5}
    marks = _line(forcing, "share forced")
    assert (list(marks.x), list(marks.y), marks.style) == ([0.5, 1.5], [0.0, 1.0], "marks")


def test_many_epochs_are_drawn_as_means_with_the_steps_faint_behind() -> None:
    lines = plots.loss_chart([_run(epochs=10)]).panels[0].lines
    assert [(line.label, line.style, len(line.x)) for line in lines[:2]] == [("", "faint", 40), ("total", "main", 10)]
    assert lines[1].x[0] == 0.5


def test_an_epoch_that_is_not_over_goes_on_at_the_same_pace() -> None:
    run = _run()
    cut = plots.Run(run.name, run.config, [r for r in run.history if r["step"] <= 6])
    assert plots.loss_chart([cut]).panels[0].lines[0].x[-1] == 1.5


def test_an_epoch_that_the_time_cut_off_is_drawn_as_far_as_it_came() -> None:
    """Its last record is of kind "epoch" too; a resume goes on where it was, with no jag in the line."""
    shared = {
        "total": 15.0,
        "kl": 30.0,
        "beta": 1.0,
        "lr": 1e-3,
        "predicted": 15.0,
        "forced": 0.0,
        "teacher_forcing": 0,
    }
    for epochs, done in ((300, 13 / 600), (8, 1 + 13 / 600)):  # an epoch's length is written down, or seen before
        whole = [{"kind": "epoch", "step": 600, "epoch": 0}] if done > 1 else []
        at = {"step": 600 * len(whole) + 13, "epoch": len(whole), "epochs_done": done}
        cut = [*whole, *({"kind": kind, **at, **shared} for kind in ("step", "epoch"))]
        config = settings.resolve({"training": {"epochs": epochs}})
        run = plots.Run("cut", config, cut)
        assert run.length() == Length(epochs, 600)
        assert list(plots.loss_chart([run]).panels[0].lines[0].x) == [pytest.approx(done)]
        rest = {"kind": "epoch", "step": 600 * (len(whole) + 1), "epoch": len(whole), "epochs_done": len(whole) + 1.0}
        resumed = plots.Run("resumed", config, [*cut, {**shared, **rest}])
        assert resumed.epochs_of(resumed.history) == sorted(resumed.epochs_of(resumed.history))
        ends = resumed.records("epoch")[len(whole) :]
        assert resumed.middles_of(ends) == pytest.approx([len(whole) + 6.5 / 600, len(whole) + (13 / 600 + 1) / 2])
    stopped = plots.Run("stopped", config, [{"kind": "step", "step": 10, "epoch": 0, "epochs_done": 0.25, **shared}])
    assert stopped.epochs_of(stopped.history) == [0.25]
    known = plots.Run(
        "known", settings.resolve({"training": {"steps_per_epoch": 600}}), [{"kind": "epoch", "step": 13}]
    )
    assert known.epochs_of(known.history) == [pytest.approx(13 / 600)], "as a history before epochs_done tells"


def test_runs_are_named_by_what_differs_between_them() -> None:
    a, b = _run("a", kl={"type": "monotonic"}), _run("b", kl={"type": "none"}, data={"path": "elsewhere"})
    assert plots.labels([a, b]) == ["kl.type = monotonic", "kl.type = none"]
    assert plots.labels([a, a, b]) == ["kl.type = monotonic (a)", "kl.type = monotonic (a)", "kl.type = none"]
    assert plots.labels([_run("a"), _run("b")]) == ["a", "b"]
    many = _run("c", kl={"type": "none", "ratio": 0.1, "cycles": 2, "start": 0.5})
    assert plots.labels([_run("a"), many]) == ["a", "c"]
    assert [line.label for line in plots.loss_chart([a, b]).panels[0].lines] == plots.labels([a, b])


def test_psnr_is_that_of_the_best_epoch_with_its_mean_and_the_baseline() -> None:
    chart = plots.psnr_chart([_run()])
    assert chart.title.endswith("epoch 1")
    zero = _line(chart.panels[0], "z = 0")
    assert (zero.label, list(zero.x), list(zero.y)) == ("z = 0: mean 25.00 dB", [1, 2], [26.0, 24.0])
    assert _line(chart.panels[0], "z from the prior").label.endswith("mean 20.00 dB")
    assert set(_line(chart.panels[0], "copying the first frame").y) == {16.0}
    cut = _run(epochs=1)
    cut.records("validation")[0]["epochs_done"] = 0.5
    assert plots.psnr_chart([cut]).title.endswith("epoch 1, unfinished (step 4)")


def test_psnr_of_several_runs_is_the_one_that_best_is_chosen_by() -> None:
    runs = [_run("a"), _run("b", kl={"type": "none"})]
    chart = plots.psnr_chart(runs)
    assert [line.label for line in chart.panels[0].lines] == [
        "kl.type = cyclical: mean 25.00 dB",
        "kl.type = none: mean 25.00 dB",
        "copying the first frame: mean 16.00 dB",  # the same for both, so that they have the same data
    ]
    runs[1].records("validation")[0]["baseline_copy_first_psnr"] = 17.0
    assert len(plots.psnr_chart(runs).panels[0].lines) == 2
    assert chart.title.endswith("z = 0")


def test_the_schedule_needs_no_training_and_has_the_courses_values() -> None:
    course = plots.Run("course", settings.resolve(settings.read_preset("course")), [])
    beta, forcing, lr = plots.schedule_chart([course]).panels
    # 70 epochs in 4 cycles of 18: beta climbs over 9 of them from 0.01 to 1
    values = {int(x): y for x, y in zip(beta.lines[0].x, beta.lines[0].y, strict=True)}
    assert [values[e] for e in (0, 1, 9, 17, 18)] == pytest.approx([0.01, 0.01 + 0.99 / 9, 1, 1, 0.01])
    assert set(forcing.lines[0].y) == {0.0}
    assert sorted(set(lr.lines[0].y)) == pytest.approx([1e-5, 1e-4, 1e-3])


def test_the_schedule_of_a_run_with_a_time_budget_says_that_its_epochs_are_planned_ones() -> None:
    budget = settings.resolve({"training": {"epochs": 400, "max_minutes": 2.0}})
    fast = settings.resolve({"training": {"epochs": 4, "max_minutes": 2.0}})
    last = {"kind": "epoch", "step": 15, "epoch": 3, "epochs_done": 3.75}
    whole = {"kind": "epoch", "step": 16, "epoch": 3, "epochs_done": 4.0, "minutes": 0.5}
    planned = "Schedules of 400 planned epochs, "
    for config, history, title in (
        (budget, [], planned + "to be fitted into at most 2 minutes"),
        (budget, [last | {"minutes": 1.5}], planned + "to be fitted into at most 2 minutes"),
        (budget, [last | {"minutes": 2.01}], planned + "fitted into 2 minutes (3.75 epochs)"),
        (fast, [whole], "Schedules"),
    ):
        assert plots.schedule_chart([plots.Run("r", config, history)]).title == title
    both = plots.schedule_chart([plots.Run("a", budget, []), _run("b")])
    assert both.title == "Schedules as planned; training fits them into training.max_minutes"
    assert plots.schedule_chart([_run()]).title == "Schedules"


def test_short_first_epochs_are_drawn_as_epochs() -> None:
    fast = {"fast_train": True, "fast_train_epochs": 2, "fast_train_fraction": 0.4}
    lr_schedule = {"type": "multistep", "milestones": [2, 5], "factor": 0.1}
    config = settings.resolve({"training": {"epochs": 8}, "data": fast, "lr_schedule": lr_schedule})
    ends = [{"kind": "epoch", "step": step, "epoch": epoch} for epoch, step in enumerate((4, 8, 18))]
    for history, full, short in (([], plots.ASSUMED_STEPS, 40), (ends[:1], 10, 4), (ends, 10, 4)):
        run = plots.Run("fast", config, history)
        assert run.length() == Length(8, full, 2, short)
        lr = plots.schedule_chart([run]).panels[2].lines[0]
        assert [lr.x[lr.y.index(lr.y[0] * f)] for f in (0.1,)] == [2]
        told = [{**end, "epochs_done": end["epoch"] + 1.0} for end in history]
        rare = [{"kind": "step", "step": 13, "epoch": 2, "epochs_done": 2.5}]  # the first log step is a late one
        assert plots.Run("fast", config, [*told, *rare * (history == ends)]).length() == Length(8, full, 2, short)
        assert max(lr.x) < 8 and len([x for x in lr.x if x < 2]) == 2 * short


def test_psnr_shows_copying_the_last_given_frame_where_it_is_recorded() -> None:
    run = _run()
    for record in run.records("validation"):
        record["baseline_copy_last_past_psnr"] = 17.0
    assert set(_line(plots.psnr_chart([run]).panels[0], "copying the last given frame: mean 17.00").y) == {17.0}


@pytest.mark.parametrize(("kind", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_a_figure_is_what_its_suffix_says(tmp_path: Path, kind: str, start: bytes) -> None:
    target = tmp_path / f"figure.{kind}"
    figures.save(plots.kl_chart([_run()]), target)
    content = target.read_bytes()
    assert content.startswith(start)
    assert figures.render(plots.kl_chart([_run()]), kind) == content  # the same figure is the same file
    if kind == "png":
        with Image.open(io.BytesIO(content)) as image:
            assert image.info["dpi"] == pytest.approx((150, 150), abs=0.1)
            assert image.size[0] == 7 * 150
    if kind == "svg":
        assert b"KL per frame (nats)" in content  # texts are named in comments beside their outlines
        assert b"teacher" in content


def test_other_suffixes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"figure\.jpg is not a PNG") as error:
        figures.save(plots.lr_chart([_run()]), tmp_path / "figure.jpg")
    assert ".png, .svg, .pdf" in error.value.hint
    assert list(tmp_path.iterdir()) == []


def test_in_a_terminal_a_falling_line_falls() -> None:
    panel = plots.Panel("loss", (plots.Line("a", [0, 10], [8.0, 1.0]), plots.Line("b", [0, 10], [1.0, 1.0], 1)))
    text = terminal.to_text(plots.Chart("Title", "epoch", (panel,)), width=60)
    assert text.isascii()
    assert max(map(len, text.splitlines())) <= 60
    rows = [line.partition("|")[2] for line in text.splitlines() if "|" in line]
    firsts = [row.find("*") for row in rows if "*" in row]
    assert firsts == sorted(firsts)
    assert firsts[0] == 0
    assert rows[-1].count("o") > 40  # b lies on the ground
    assert "* a   o b" in text
    assert text.splitlines()[-1].split() == ["0", "epoch", "10"]


def test_a_chart_with_one_point_or_constant_values_is_drawn() -> None:
    panel = plots.Panel("loss", (plots.Line("", [1.0], [0.0]),), log=True)
    assert "loss" in terminal.to_text(plots.Chart("t", "epoch", (panel,)))
    assert figures.render(plots.Chart("t", "epoch", (panel,)), "png").startswith(b"\x89PNG")


def test_a_run_without_losses_or_scores_says_so(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "empty-001")
    durable.write_text(folder.config, settings.to_toml(settings.Config()))
    with pytest.raises(DataError, match=r"there is no history .*history\.jsonl"):
        plots.read_run(folder)
    durable.write_text(folder.history, '{"kind": "start"}\n')
    with pytest.raises(DataError, match="empty-001 has no losses yet"):
        plots.read_run(folder)
    assert plots.read_run(folder, trained=False).config == settings.with_size(settings.Config())
    run = _run()
    unscored = plots.Run("u", run.config, [r for r in run.history if r["kind"] == "step"])
    with pytest.raises(DataError, match="u has no validation yet"):
        plots.psnr_chart([unscored])


@pytest.mark.parametrize("kind", schema.choices(schema.Reconstruction))
@pytest.mark.parametrize("reduction", schema.choices(schema.Reduction))
def test_every_kind_of_loss_is_drawn_under_its_name(kind: str, reduction: str) -> None:
    run = _run(loss={"reconstruction": kind}, kl={"reduction": reduction})
    name = {"mse": "MSE", "l1+mse": "½ L1 + ½ MSE", "log-mse": "ln MSE"}[kind]
    kl, error, _, _ = plots.kl_chart([run]).panels
    assert error.ylabel == f"{name} per frame"
    assert {"sum": "(nats)", "mean": "(nats per dimension)"}[reduction] in kl.ylabel
    assert plots.loss_chart([run]).panels[0].ylabel == f"loss per frame\n({name} + β KL + smoothing)"


def _negative(name: str) -> plots.Run:
    """The logarithm of an error falls from -1 to -8 a frame: as ``log-mse`` does."""
    run = _run(name, loss={"reconstruction": "log-mse"})
    for record in run.history:
        for key in {"total", "reconstruction"} & record.keys():
            record[key] = -15.0 * record["step"]
    return run


def test_a_negative_loss_is_drawn_in_a_file_and_in_a_terminal() -> None:
    chart = plots.loss_chart([_negative("a")])
    assert not chart.panels[0].log
    assert list(_line(chart.panels[0], "total").y) == [-1, -2, -3, -4, -5, -6, -7, -8]
    drawn = terminal.to_text(chart).partition("beta")[2].partition("+---")[0]
    assert drawn.count("*") + drawn.count("o") > 40
    assert figures.render(chart, "png").startswith(b"\x89PNG")


def test_losses_of_two_kinds_have_two_panels_each_with_its_unit_and_its_runs() -> None:
    chart = plots.loss_chart([_run("a"), _negative("b"), _run("c")])
    mse, log_mse, beta, _ = chart.panels
    assert ("(MSE +" in mse.ylabel, mse.log, len(mse.lines)) == (True, True, 2)
    assert ("(ln MSE +" in log_mse.ylabel, log_mse.log, len(log_mse.lines)) == (True, False, 1)
    for panel in (mse, log_mse):  # a panel of one run says which
        axes = Figure().subplots()
        figures._draw(axes, panel, shared=True)
        assert [text.get_text() for text in axes.get_legend().get_texts()] == [line.label for line in panel.lines]
    assert [line.run for line in (*mse.lines, *log_mse.lines)] == [0, 2, 1]  # the colours that they have below
    assert [line.run for line in beta.lines] == [0, 1, 2]
    assert [panel.ylabel for panel in plots.kl_chart([_run("a"), _negative("b")]).panels[1:3]] == [
        "MSE per frame",
        "ln MSE per frame",
    ]


def test_total_beta_and_ratio_have_colours_of_their_own() -> None:
    lines = [line for panel in plots.loss_chart([_run()]).panels for line in panel.lines]
    colours = {line.label: line.run for line in lines}
    assert len(set(colours.values())) == len(colours) == 5  # total, reconstruction, beta, ratio, share forced


def test_a_single_record_is_a_dot() -> None:
    run = _run()
    one = plots.Run("one", run.config, run.history[:1])
    axes = Figure().subplots()
    figures._draw(axes, plots.loss_chart([one]).panels[0])
    assert [(line.get_marker(), len(line.get_xdata())) for line in axes.lines] == [("o", 1), ("o", 1)]


def test_schedules_by_epochs_are_stairs_that_step_where_an_epoch_begins() -> None:
    run = _run(epochs=3)
    for record in run.history:
        if "lr" in record:
            record |= {"lr": 0.1 ** record["epoch"], "beta": record["epoch"] / 2}
    sparse = plots.Run("s", run.config, [r for r in run.history if r["kind"] != "step" or r["step"] % 4 == 2])
    # steps 2, 6 and 10 of 4 an epoch: the middles of the epochs 0, 1 and 2
    (lr,) = plots.lr_chart([sparse]).panels[0].lines
    assert list(lr.x) == [0, 0.5, 1, 1, 1.5, 2, 2, 2.5]
    assert list(lr.y) == pytest.approx([1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01])
    for chart in (plots.loss_chart([sparse]), plots.kl_chart([sparse])):
        (beta,) = chart.panels[-2].lines
        assert list(zip(beta.x, beta.y, strict=True)) == [
            (0, 0), (0.5, 0), (1, 0), (1, 0.5), (1.5, 0.5), (2, 0.5), (2, 1), (2.5, 1),
        ]  # fmt: skip
    rare = plots.Run("r", run.config, [r for r in run.history if r["kind"] != "step" or r["step"] == 10])
    (lr,) = plots.lr_chart([rare]).panels[0].lines  # epochs without a log step are told by their end
    assert [*dict.fromkeys(zip(lr.x, lr.y, strict=True))] == [
        *((0, 1), (1, 1), (1, pytest.approx(0.1)), (2, pytest.approx(0.1)), (2, pytest.approx(0.01))),
        (2.5, pytest.approx(0.01)),
    ]
    by_step = _run(kl={"per": "iteration"}, lr_schedule={"type": "cosine"})
    drawn = (plots.lr_chart([by_step]).panels[0], plots.loss_chart([by_step]).panels[-2])
    assert [len(panel.lines[0].x) for panel in drawn] == [8, 8]


def test_a_curve_that_covers_another_is_dashed_over_it() -> None:
    run = _run()
    for record in run.records("validation"):
        record["psnr_prior_per_frame"] = [v - 0.001 for v in record["psnr_zero_per_frame"]]
    zero, prior, baseline = plots.psnr_chart([run]).panels[0].lines
    assert (zero.style, prior.style, baseline.style) == ("fine", "over", "dashed")
    assert [line.style for line in plots.psnr_chart([_run()]).panels[0].lines] == ["fine", "fine", "dashed"]
    assert [line.style for line in plots.loss_chart([_run("a"), _run("b")]).panels[1].lines] == ["main", "over"]
    marks = terminal.to_text(plots.psnr_chart([run]))
    assert marks.count("*") > 20 and marks.count("o") > 20


def test_a_run_in_a_folder_named_run_is_called_by_the_folder_around_it(tmp_path: Path) -> None:
    for path, name in ((tmp_path / "demo" / "run", "demo"), (tmp_path / "runs" / "course-001", "course-001")):
        folder = RunFolder(path)
        durable.write_text(folder.config, settings.to_toml(settings.Config()))
        assert plots.read_run(folder, trained=False).name == name


def test_on_a_logarithmic_scale_in_a_terminal_what_is_not_positive_is_left_out() -> None:
    """The learning rate of a warmup begins at 0: a line from there would run below the scale."""
    rate = plots.Line("", [0.0, 1.0, 2.0], [0.0, 1e-3, 1e-4])
    text = terminal.to_text(plots.Chart("t", "epoch", (plots.Panel("learning rate", (rate,), log=True),)), width=60)
    rows = [line.partition("|")[2] for line in text.splitlines() if "|" in line]
    assert min(row.index("*") for row in rows if "*" in row) > len(max(rows, key=len)) // 3
