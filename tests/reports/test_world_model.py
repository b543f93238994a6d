import base64
import io
import re

import matplotlib.image
import numpy as np
import pytest
from analysis.synthetic import grid

from reports.parsed import render as rendered
from wpt_bench.reports import world_model
from wpt_bench.reports.figures.world_model import FULL_DIFFERENCE, SHOWN

CONTEXT, HORIZON = 5, 15


def row(embodiment, seed=0, level=0.3):
    steps = np.linspace(0.5, 1.5, HORIZON)
    curves = {"by_step": level * steps, "persistence_by_step": 0.7 * steps, "mean_by_step": np.ones(HORIZON)}
    means = {"model": level, "persistence": 0.7, "mean": 1.0, "context": CONTEXT, "horizon": HORIZON}
    of = {"embodiment": embodiment, "seed": seed, "stage": f"stage-{seed}", "observation": "state"}
    return of | means | {name: curve.tolist() for name, curve in curves.items()}


def states(dims=7):
    """Dimension i, counted from 10, is a wave of height i: the last ones vary most."""
    time = np.arange(CONTEXT + HORIZON)[:, None]
    truth = (np.sin(time) * np.arange(dims)).astype(np.float32)
    return {"truth": truth, "predicted": truth[CONTEXT:] + 0.2, "dimension": np.arange(10, 10 + dims)}


def frames(height=64):
    """A grey level for each step; the prediction is 32 levels too bright."""
    levels = np.arange(CONTEXT + HORIZON, dtype=np.uint8)[:, None, None, None] * 10
    truth = np.broadcast_to(levels, (CONTEXT + HORIZON, height, 64, 3))
    return {"truth": truth, "predicted": truth[CONTEXT:] + np.uint8(32)}


def stage(embodiments, seed=0, damage=""):
    return {"stage": f"stage-{seed}", "seed": seed, "embodiments": embodiments, "damage": damage}


def render(folder, rows, stages):
    grid(folder / "runs", {"wpt": 0.5})
    return rendered(folder / "runs", folder / "out", extras={"open_loop": rows, "open_loop_examples": stages})


@pytest.mark.parametrize("example", [states(), frames()], ids=["state", "pixels"])
def test_figures_are_on_the_page_and_saved_with_captions_that_say_what_one_sees(tmp_path, example):
    parsed = render(tmp_path, [row("walker"), row("cheetah")], [stage({"walker": example})])
    for name in ("open-loop-error", "open-loop-example-walker"):
        for ending in ("svg", "png", "pdf"):
            assert (tmp_path / "out" / "figures" / f"{name}.{ending}").stat().st_size > 1000
        picture = matplotlib.image.imread(tmp_path / "out" / "figures" / f"{name}.png")
        assert min(picture.shape[:2]) > 400 and picture[..., :3].std() > 0.02
    chosen = "A held-out chunk picked by pre-training seed 0, not by how well it is predicted."
    assert chosen in parsed.words and "agent steps ahead" in parsed.words and "persistence" in parsed.words
    assert "Mean squared error of symlog of the state, each dimension in variances of the training data" in parsed.words
    assert len(parsed.ids) == len(set(parsed.ids))
    references = re.findall(r'(?:xlink:href="|url\()#([^")]+)', parsed.source)
    assert set(references) <= set(parsed.ids)


def test_text_is_legible_at_the_width_of_the_figure(tmp_path):
    parsed = render(tmp_path, [row("walker")], [stage({"walker": states(), "cheetah": frames()})])
    sizes = {float(size) for size in re.findall(r"font: ([\d.]+)px", parsed.source)}
    assert sizes and min(sizes) >= 8


def test_trajectories_are_of_the_dimensions_that_vary_most(tmp_path):
    words = render(tmp_path, [row("walker")], [stage({"walker": states()})]).words
    shown = [int(number) for number in re.findall(r"state dimension (\d+)", words)]
    assert shown == list(range(17 - SHOWN, 17)) and f"The {SHOWN} of 7 state dimensions" in words
    assert "sees 5 observations (shaded)" in words and "standard deviations of the training data" in words


def test_fewer_dimensions_than_panels_are_all_shown(tmp_path):
    words = render(tmp_path, [row("cart")], [stage({"cart": states(3)})]).words
    assert [int(number) for number in re.findall(r"state dimension (\d+)", words)] == [10, 11, 12]


def test_a_filmstrip_holds_the_very_frames_and_needs_no_network(tmp_path):
    parsed = render(tmp_path, [row("walker")], [stage({"walker": frames()})])
    addresses = [value for _, name, value in parsed.attributes if name in ("src", "href", "xlink:href")]
    (data,) = [address for address in addresses if not address.startswith("#")]
    assert data.startswith("data:image/png;base64,")
    picture = matplotlib.image.imread(io.BytesIO(base64.b64decode(data.partition(",")[2])))
    seen = np.round(picture * 255).astype(int)
    top, middle, bottom = (seen[at] for at in (32, 100, 168))
    starts = np.flatnonzero(np.diff(top[:, 3], prepend=0) > 0)  # from see-through to a frame
    assert [top[start, 0] for start in starts] == [10 * step for step in (1, 4, 7, 10, 13, 16, 19)]
    assert [middle[start, 0] for start in starts[2:]] == [10 * step + 32 for step in (7, 10, 13, 16, 19)]
    assert {bottom[start, 0] for start in starts[2:]} == {32 * 255 // FULL_DIFFERENCE}
    assert not middle[: starts[2], 3].any()  # nothing is predicted of the context
    assert all(word in parsed.words for word in ("truth", "predicted", "difference", "context"))


def test_the_same_input_gives_the_same_figures():
    extras = {"open_loop": [row("walker")], "open_loop_examples": [stage({"walker": frames(), "cart": states()})]}
    one, two = (world_model.open_loop(extras)[0].drawings for _ in range(2))
    assert [drawing.svg for drawing in one] == [drawing.svg for drawing in two]
    assert [drawing.png for drawing in one] == [drawing.png for drawing in two]


def test_every_pretraining_is_a_line_of_the_table_and_the_curve_is_their_mean(tmp_path):
    parsed = render(tmp_path, [row("walker", 0, 0.2), row("walker", 1, 0.4), row("cart", 0, 0.9)], [])
    assert "pre-training seed" in parsed.words and "0.200" in parsed.words and "0.400" in parsed.words
    assert "for 1 of 2 embodiments" in parsed.words
    assert "Thick: mean of 2 pre-training seeds; thin: each." in parsed.words
    made, _ = world_model.open_loop({"open_loop": [row("walker", 0, 0.2), row("walker", 1, 0.4)]})
    (panel,) = made.by_horizon.panels
    assert panel.title == "walker"
    curve = {series.method: series.y for series in panel.series}
    assert curve["world model"] == pytest.approx((0.3 * np.linspace(0.5, 1.5, HORIZON)).tolist())


def test_examples_are_of_the_first_pretraining_that_has_some(tmp_path):
    words = render(tmp_path, [row("walker", 1)], [stage({}), stage({"walker": states()}, 1)]).words
    assert "picked by pre-training seed 1" in words
    assert "Pre-training stage-0 (seed 0) was made by a version that kept no example" in words
    assert "pre-train again" in words and "Problems" not in words


def test_a_row_without_errors_by_step_has_a_line_and_no_curve(tmp_path):
    old = {name: value for name, value in row("walker").items() if name != "mean_by_step"}
    words = render(tmp_path, [old], [stage({})]).words
    assert "0.300" in words and "against agent steps" not in words


def test_damage_is_said_and_the_rest_is_shown(tmp_path):
    damage = "/x/open_loop.safetensors is damaged (<b>); delete /x to make it again."
    parsed = render(tmp_path, [row("walker")], [stage({}, damage=damage)])
    assert "Problems" in parsed.words and damage in parsed.words and "0.300" in parsed.words
    assert "kept no example" not in parsed.words and "against agent steps" in parsed.words


@pytest.mark.parametrize(
    "stages",
    [
        [3],
        [{"stage": "s"}],
        [stage({"walker": {"truth": np.zeros((20, 3))}})],
        [stage({"walker": {"truth": np.zeros((20, 3)), "predicted": np.zeros((15, 4)), "dimension": np.arange(3)}})],
        [stage({"walker": {"truth": np.zeros((15, 3)), "predicted": np.zeros((15, 3)), "dimension": np.arange(3)}})],
        [stage({"walker": {"truth": np.zeros(20), "predicted": np.zeros(15)}})],
    ],
)
def test_unusable_examples_are_a_problem_and_the_errors_are_shown(tmp_path, stages):
    words = render(tmp_path, [row("walker")], stages).words
    assert "The open-loop examples cannot be shown" in words and "0.300" in words


def test_names_with_markup_and_mathematics_are_only_text(tmp_path):
    name = "<b>&$x_1$/../y"
    parsed = render(tmp_path, [row(name)], [stage({name: states(), f"{name}2": frames()})])
    assert parsed.words.count(name) >= 3 and "<b>" not in parsed.source
    assert {path.parent for path in (tmp_path / "out").rglob("*open-loop*")} == {tmp_path / "out" / "figures"}


def test_from_which_step_on_the_model_is_ahead_is_said_beside_the_average():
    """Persistence is at 0.35 and 0.4 at the first two of 15 steps; at the third it has passed a model at .42."""
    found, _ = world_model.open_loop({"open_loop": [row("walker") | {"by_step": [0.42] * HORIZON, "model": 0.42}]})
    assert [one.ahead for one in found.rows] == ["3"] and found.rows[0].better
    assert found.sentence.endswith(
        "for 1 of 1 embodiment. Step by step it is ahead of both from step 3 on: before, a trivial predictor is as "
        "good or better."
    )
    never = row("cheetah") | {"by_step": [0.3] * (HORIZON - 1) + [2.0]}
    both, _ = world_model.open_loop({"open_loop": [row("walker"), never]})
    assert [one.ahead for one in both.rows] == ["1", "never"]
    assert "ahead of both from step 1 on and in 1 of 2 cases never" in both.sentence
