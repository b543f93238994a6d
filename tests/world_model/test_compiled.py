"""Compiled code against the plain code it stands in for, both in float32."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from wpt_bench.world_model import functional, kernels, losses
from wpt_bench.world_model.compiled import HeadTape, PosteriorScan, PriorScan
from wpt_bench.world_model.config import WorldModelSize
from wpt_bench.world_model.nets import head
from wpt_bench.world_model.ready import compile_kernels
from wpt_bench.world_model.rssm import RSSM, Latent, PosteriorSteps, PriorSteps
from wpt_bench.world_model.tape import ChainTape

ACTION = 5
SIZES = [
    WorldModelSize(deter=24, hidden=8, stoch=3, classes=4, blocks=4, cnn_depth=4, units=16, layers=2),
    WorldModelSize(deter=66, hidden=39, stoch=5, classes=17, blocks=3, cnn_depth=4, units=16, layers=1),
    WorldModelSize(deter=128, hidden=96, stoch=16, classes=16, blocks=4, cnn_depth=4, units=96, layers=2),
]


def model(size: WorldModelSize) -> RSSM:
    """Weights away from their trivial start."""
    made = RSSM(size, size.units, ACTION)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made


def one_hot(size: WorldModelSize, rows: int) -> Tensor:
    return torch.nn.functional.one_hot(torch.randint(size.classes, (rows, size.stoch)), size.classes).flatten(1).float()


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def near(one: Tensor, other: Tensor, tolerance: float = 2e-5) -> bool:
    """Equal to ``tolerance`` of the largest number."""
    return torch.allclose(one, other, rtol=0, atol=tolerance * max(1.0, other.abs().max().item()))


@given(
    rows=st.integers(0, 19),
    depth=st.integers(1, 40),
    columns=st.integers(1, 70),
    sides=st.tuples(*[st.integers(0, 3)] * 3),
)
@settings(max_examples=60, deadline=None)
def test_products_of_any_shape_and_spacing(rows: int, depth: int, columns: int, sides: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(rows + 100 * depth + 10_000 * columns)

    def matrix(height: int, width: int, side: int) -> np.ndarray:
        return rng.normal(size=(height, width + 2 * side)).astype(np.float32)[:, side : side + width]

    a, b, c = (
        matrix(*shape, side)
        for shape, side in zip([(rows, depth), (depth, columns), (rows, columns)], sides, strict=True)
    )
    around = c.base.copy()
    expected = c + a @ b
    kernels.add_product(a, b, c)
    np.testing.assert_allclose(c, expected, rtol=1e-4, atol=1e-4)
    outside = np.delete(np.arange(around.shape[1]), np.arange(sides[2], sides[2] + columns))
    np.testing.assert_array_equal(c.base[:, outside], around[:, outside])


def test_exp_and_log_are_accurate_and_keep_nan() -> None:
    for x in np.linspace(-86, 87, 2001).astype(np.float32):
        assert kernels.exp(x) == pytest.approx(np.exp(np.float64(x)), rel=2e-7)
    for x in np.geomspace(1e-30, 1e30, 2001).astype(np.float32):
        assert kernels.log(x) == pytest.approx(np.log(np.float64(x)), rel=3e-7, abs=1e-7)
    assert np.isnan(kernels.exp(np.float32("nan")))
    assert 0 <= kernels.exp(np.float32(-1000)) < 1e-37


@pytest.mark.parametrize("scale", [0.0, 1.0, 10.0, 1000.0])
def test_samples_are_the_plain_ones(scale: float) -> None:
    torch.manual_seed(0)
    logits, noise = scale * torch.randn(50, 6, 7), torch.rand(50, 6)
    expected, shares = functional.sample_one_hot(logits, noise)
    probs, state = torch.empty(50, 42), torch.full((50, 45), -1.0)
    kernels.sample(logits.flatten(1).numpy(), noise.numpy(), probs.numpy(), state.numpy())
    assert torch.equal(state[:, 3:], expected.flatten(1)) and (state[:, :3] == -1).all()
    assert torch.allclose(probs, shares.flatten(1), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("length", "batch"), [(1, 1), (7, 5), (4, 16)])
def test_posteriors_and_their_gradients(size: WorldModelSize, length: int, batch: int) -> None:
    torch.manual_seed(0)
    rssm = model(size)
    inputs = torch.randn(length, batch, size.deter), torch.randn(length, batch, size.hidden)
    with torch.no_grad():
        noise = torch.rand(length, batch, size.stoch)
        scans = [scan(rssm, *inputs, noise) for scan in (PosteriorScan, PosteriorSteps)]
        found, expected = (scan.outputs() for scan in scans)
        assert torch.equal(found[1], expected[1])
        assert all(near(*pair) for pair in zip(found, expected, strict=True))
        gradients = [torch.randn_like(part) for part in expected]
        found, expected = (scan.backward(*gradients) for scan in scans)
    assert near(found[0], expected[0]) and near(found[1], expected[1])
    assert found[2].keys() == expected[2].keys()
    for name, parameter in rssm.named_parameters():
        if parameter in expected[2]:
            assert near(found[2][parameter], expected[2][parameter]), name


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("steps", "rows"), [(1, 1), (5, 13), (2, 301)])
@pytest.mark.usefixtures("threads")
def test_imagination_and_its_gradients(size: WorldModelSize, steps: int, rows: int) -> None:
    torch.manual_seed(0)
    rssm = model(size)
    start = Latent(torch.randn(rows, size.deter), one_hot(size, rows))
    both = PriorScan(rssm, start, steps), PriorSteps(rssm, start, steps)
    with torch.no_grad():
        for _ in range(steps):
            action, noise = torch.rand(rows, ACTION) * 2 - 1, torch.rand(rows, size.stoch)
            for one in both:
                one.forward(action, noise)
            assert near(both[0].feature, both[1].feature)
        assert near(both[0].features(), both[1].features())
        gradient = torch.randn(steps, rows, size.feature)
        expected = both[1].backward(gradient)
        assert near(both[0].backward(gradient.clone()), expected)


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.usefixtures("threads")
def test_heads_and_their_gradients(layers: int) -> None:
    torch.manual_seed(0)
    size = SIZES[1]
    net = head(size.feature, 24, layers, 9, scale=1.0)
    tapes = HeadTape(net, size.deter), ChainTape(net)
    inputs = [torch.cat([torch.randn(rows, size.deter), one_hot(size, rows)], 1) for rows in (3, 70, 301)]
    with torch.no_grad():
        for x in inputs:
            assert near(*(tape.forward(x) for tape in tapes))
        for x in reversed(inputs[1:]):
            gradient = torch.randn(len(x), 9)
            assert near(*(tape.backward(gradient.clone()) for tape in tapes))
        gradient = torch.randn(len(inputs[0]), 9)
        for tape in tapes:
            tape.end(gradient.clone())
        found, expected = (tape.gradients() for tape in tapes)
    assert found.keys() == expected.keys() == set(net.parameters())
    assert all(near(found[parameter], expected[parameter]) for parameter in expected)


@pytest.mark.parametrize("scale", [0.0, 1.0, 100.0])
def test_two_hot_losses_and_means_and_their_gradients(scale: float) -> None:
    torch.manual_seed(0)
    logits, target = scale * torch.randn(4, 30, functional.TWO_HOT_BINS), 100 * torch.randn(4, 30)
    weight = torch.randn(4, 30)
    for compute in ("two_hot_mean", "two_hot_loss"):
        inputs = (target,) if compute == "two_hot_loss" else ()
        values, gradients = [], []
        for module in (losses, functional):
            of = logits.clone().requires_grad_()
            values.append(getattr(module, compute)(of, *inputs))
            gradients.append(torch.autograd.grad((values[-1] * weight).sum(), of)[0])
        assert torch.allclose(*values, rtol=1e-4, atol=1e-5), compute
        assert near(*gradients, tolerance=1e-4), compute
    assert losses.two_hot_loss(logits, torch.full((4, 30), float("nan"))).isnan().all()
    assert losses.two_hot_loss(logits * float("nan"), target).isnan().all()


@pytest.mark.parametrize("scale", [0.0, 1.0, 100.0])
def test_divergences_and_their_gradients(scale: float) -> None:
    torch.manual_seed(0)
    q, p = (scale * torch.randn(4, 6, 3, 5) for _ in range(2))
    weights = torch.randn(2, 4, 6)
    values, gradients = [], []
    for exact in (torch.float32, torch.float64):  # the plain way takes what is not float32
        of = [logits.to(exact).requires_grad_() for logits in (q, p)]
        kls = losses.balanced_kl(*of)
        values.append(torch.stack(kls).float())
        total = sum((kl * weight).sum() for kl, weight in zip(kls, weights, strict=True))
        gradients.append([gradient.float() for gradient in torch.autograd.grad(total, of)])
    assert near(*values)
    assert all(near(*pair) for pair in zip(*gradients, strict=True))


def test_getting_ready_draws_no_random_numbers() -> None:
    before = torch.get_rng_state()
    compile_kernels.cache_clear()
    compile_kernels()
    assert torch.equal(before, torch.get_rng_state())
