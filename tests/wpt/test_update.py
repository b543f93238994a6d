"""The fast update against the straightforward one, from the same weights, batches and noise."""

import copy

import numpy as np
import pytest
import torch

from wpt.straightforward import Straightforward, world_model_loss
from wpt.test_agent import NONE
from wpt.toy import LEARNING, SETTINGS, STEPS, agent, fill, learn
from wpt_bench.protocol import ACTION_PAD, STATE_PAD
from wpt_bench.world_model.config import WorldModelSize
from wpt_bench.world_model.model import WorldModel
from wpt_bench.wpt.agent import WPTAgent


@pytest.mark.parametrize(("starts", "horizon"), [(0, 1), (32, 5), (7, 15)])
def test_updates_equal_the_straightforward_ones(starts: int, horizon: int) -> None:
    """Losses agree to float accuracy; weights do up to what Adam's first steps make of a gradient near zero."""
    settings = type(SETTINGS)(
        **{name: getattr(SETTINGS, name) for name in SETTINGS.__struct_fields__}
        | {"starts": starts, "horizon": horizon, "adam_eps": 1e-5}
    )
    fast = agent(NONE, None, settings)
    fill(fast)
    plain = copy.deepcopy(fast)
    reference = Straightforward(plain)
    for _ in range(3):
        found, expected = fast.update(), reference.update()
        assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-4, abs=1e-5)
    for (name, one), (_, other) in zip(_weights(fast), _weights(plain), strict=True):
        assert torch.allclose(one, other, atol=2e-4), name
    assert fast.behaviour.return_range.item() == pytest.approx(reference.return_range.item(), rel=1e-2)


def _weights(one: WPTAgent) -> list[tuple[str, torch.Tensor]]:
    state = one.state_dict()
    return [(name, value) for name, value in state.items() if "/" in name and "optimizer" not in name]


@pytest.mark.parametrize("observation", ["state", "pixels"])
def test_gradients_of_the_world_model_equal_the_straightforward_ones(observation: str) -> None:
    torch.manual_seed(0)
    size = WorldModelSize(deter=24, hidden=8, stoch=3, classes=4, blocks=4, cnn_depth=4, units=16, layers=2)
    exact = torch.float64 if observation == "state" else torch.float32  # pictures compute in float32 at most
    model = WorldModel(size, observation, STATE_PAD, ACTION_PAD).to(exact)
    for parameter in model.parameters():  # away from their trivial start
        torch.nn.init.normal_(parameter, std=0.2)
    length, batch = 6, 3
    if observation == "state":
        seen = torch.randn(length, batch, STATE_PAD, dtype=exact)
    else:
        seen = model.prepare(torch.randint(0, 256, (length, batch, 64, 64, 3), dtype=torch.uint8))
    mask = torch.ones(batch, STATE_PAD) if observation == "state" else None
    action = torch.rand(length, batch, ACTION_PAD, dtype=exact)
    losses = (
        model.loss(seen, mask, action, torch.Generator().manual_seed(0)).loss,
        world_model_loss(model, seen, mask, action, torch.Generator().manual_seed(0))[0],
    )
    tolerance = 1e-9 if observation == "state" else 1e-4
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=tolerance)
    names, parameters = zip(*model.named_parameters(), strict=True)
    for name, fast, plain in zip(names, *(torch.autograd.grad(loss, parameters) for loss in losses), strict=True):
        assert torch.allclose(fast, plain, rtol=tolerance, atol=tolerance * plain.abs().max().item()), name


@pytest.mark.parametrize("observation", ["state", "pixels"])
def test_bfloat16_products_give_gradients_near_those_of_float32(observation: str) -> None:
    size = WorldModelSize(deter=64, hidden=32, stoch=8, classes=4, blocks=4, cnn_depth=4, units=32, layers=1)
    models = []
    for precision in ("fp32", "bf16"):
        torch.manual_seed(0)
        models.append(WorldModel(size, observation, STATE_PAD, ACTION_PAD, precision))
    length, batch = 8, 4
    shape = (STATE_PAD,) if observation == "state" else (64, 64, 3)
    seen = (
        torch.randn(length, batch, *shape) if observation == "state" else torch.randint(0, 256, (length, batch, *shape))
    )
    mask = torch.ones(batch, STATE_PAD) if observation == "state" else None
    action = torch.rand(length, batch, ACTION_PAD)
    losses, gradients = [], []
    for model in models:
        prepared = model.prepare(seen if observation == "state" else seen.to(torch.uint8))
        loss = model.loss(prepared, mask, action, torch.Generator().manual_seed(0)).loss
        losses.append(loss.item())
        gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))]))
    assert losses[1] == pytest.approx(losses[0], rel=0.01) and losses[1] != losses[0]
    assert torch.cosine_similarity(*gradients, dim=0).item() > 0.99


def test_an_agent_in_bfloat16_keeps_weights_and_metrics_in_float32() -> None:
    one, other = (agent(NONE, None, precision=precision) for precision in ("fp32", "bf16"))
    for made in (one, other):
        fill(made)
    metrics = [made.update() for made in (one, other)]
    assert all(value.dtype == torch.float32 for _, value in _weights(other))
    assert metrics[1] == pytest.approx(metrics[0], rel=0.05, abs=0.05) and metrics[1] != metrics[0]


@pytest.mark.slow
def test_learning_is_the_same_with_the_straightforward_update() -> None:
    """The same seeds, whose float errors soon part them: neither learns better on average, and both learn."""
    ends = []
    for seed in range(4):
        fast, plain = (agent(NONE, None, LEARNING, budget=2 * STEPS * 20, seed=seed) for _ in range(2))
        ends.append([learn(fast, fast.update, seed)[1], learn(plain, Straightforward(plain).update, seed)[1]])
    differences = np.subtract(*np.transpose(ends))
    deviation = differences.std(ddof=1) / np.sqrt(len(differences))
    assert np.min(ends) > 0.7 * STEPS, ends
    assert abs(differences.mean()) < 2.5 * deviation + 0.01 * STEPS, ends
