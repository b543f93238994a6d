"""The world model: sizes, the recurrence against a plain reference, what may influence what."""

import pytest
import torch
from torch import Tensor

from wpt_bench.protocol import ACTION_PAD, STATE_PAD
from wpt_bench.world_model.config import WorldModelSize
from wpt_bench.world_model.model import FREE_NATS, WorldModel
from wpt_bench.world_model.nets import BlockLinear
from wpt_bench.world_model.optimizer import Optimizer
from wpt_bench.world_model.recurrence import Recurrence
from wpt_bench.world_model.rssm import Latent

SMALL = WorldModelSize(deter=24, hidden=8, stoch=3, classes=4, blocks=4, cnn_depth=4, units=16, layers=2)


def _count(module: torch.nn.Module) -> float:
    return round(sum(parameter.numel() for parameter in module.parameters()) / 1e6, 1)


def test_the_papers_model_has_281_million_parameters() -> None:
    with torch.device("meta"):
        model = WorldModel(WorldModelSize(), "pixels", STATE_PAD, ACTION_PAD)
    assert (_count(model), _count(model.encoder), _count(model.rssm), _count(model.decoder)) == (
        281.4,
        6.2,
        210.1,
        65.1,
    )


def test_blocks_must_divide_the_widths() -> None:
    with pytest.raises(ValueError, match="multiples of 8"):
        WorldModelSize(deter=20)


def test_block_linear_is_a_block_diagonal_matrix() -> None:
    layer = BlockLinear(6, 4, 2)
    torch.nn.init.normal_(layer.weight)
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(5, 6)
    dense = torch.block_diag(*layer.weight.detach())
    assert torch.allclose(layer(x), x @ dense + layer.bias, atol=1e-6)


def test_networks_see_how_large_actions_and_states_are() -> None:
    """A norm behind a layer without bias makes the same of an action and of half of it."""
    torch.manual_seed(0)
    model = WorldModel(SMALL, "state", STATE_PAD, ACTION_PAD)
    for network, width, real in ((model.rssm.recurrence.project, ACTION_PAD, 4), (model.encoder, STATE_PAD, 20)):
        x = torch.zeros(64, width)
        x[:, :real] = torch.randn(64, real)
        out, halved, turned = network(x), network(x / 2), network(-x)
        assert (out - halved).norm() > 0.04 * (out - turned).norm()


def _plain_step(layer: Recurrence, latent: Latent, action: Tensor) -> Tensor:
    """The block GRU as the paper's code draws it: inputs copied to every block, each block with its own matrix."""
    width = latent.deter.shape[-1] // layer.blocks
    inputs = torch.cat([layer.action_in(action), layer.stoch_in(latent.stoch), layer.deter_in(latent.deter)], -1)
    shared = torch.cat([layer.core_action.weight, layer.core_latent.weight], 1)
    core = []
    for block in range(layer.blocks):
        rows = slice(block * width, (block + 1) * width)
        own = latent.deter[:, rows] @ layer.core_deter.weight[block]
        core.append(inputs @ shared[rows].T + own + layer.core_action.bias[rows])
    hidden = layer.core_norm(torch.cat(core, -1))
    resets, candidates, updates = [], [], []
    for block in range(layer.blocks):
        rows = slice(block * width, (block + 1) * width)
        bias = layer.gates.bias[3 * block * width : 3 * (block + 1) * width]
        gates = hidden[:, rows] @ layer.gates.weight[block] + bias
        for part, gate in zip((resets, updates, candidates), gates.chunk(3, -1), strict=True):
            part.append(gate)
    reset, candidate, update = (torch.cat(part, -1) for part in (resets, candidates, updates))
    candidate = torch.tanh(torch.sigmoid(reset) * candidate)
    update = torch.sigmoid(update - 1)
    return update * candidate + (1 - update) * latent.deter


def test_the_recurrence_equals_the_plain_one() -> None:
    model = WorldModel(SMALL, "state", STATE_PAD, ACTION_PAD)
    for parameter in model.parameters():  # biases and norms away from their trivial start
        torch.nn.init.normal_(parameter, std=0.3)
    latent = Latent(torch.randn(7, 24), torch.randn(7, 12))
    action = torch.rand(7, ACTION_PAD)
    imagined = model.rssm.imagine_step(latent, action, torch.rand(7, 3))
    assert torch.allclose(imagined.deter, _plain_step(model.rssm.recurrence, latent, action), atol=1e-5)


def _chunk(length: int = 6, batch: int = 3, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    observation = torch.randn(length, batch, STATE_PAD, generator=generator)
    action = torch.rand(length, batch, ACTION_PAD, generator=generator) * 2 - 1
    mask = torch.zeros(batch, STATE_PAD)
    mask[:, :10] = 1
    return observation * mask, mask, action


def test_observing_a_chunk_equals_observing_step_by_step() -> None:
    model = WorldModel(SMALL, "state", STATE_PAD, ACTION_PAD)
    observation, _, action = _chunk()
    embedding = model.encode(observation)
    noise = model.rssm.noise((6, 3), torch.Generator().manual_seed(1))
    latents, _, _ = model.rssm.observe(embedding, action, noise)
    latent = model.rssm.initial(3)
    for step in range(6):
        led = torch.zeros_like(action[0]) if step == 0 else action[step]
        latent = model.rssm.observe_step(latent, led, embedding[step], noise[step])
        assert torch.allclose(latent.deter, latents.deter[step], atol=1e-5)
        assert torch.equal(latent.stoch.round(), latents.stoch[step].round())


def test_the_first_action_of_a_chunk_does_not_matter_the_second_does() -> None:
    model = WorldModel(SMALL, "state", STATE_PAD, ACTION_PAD)
    observation, mask, action = _chunk()
    base = model.loss(observation, mask, action, torch.Generator().manual_seed(0)).loss
    for step, same in ((0, True), (1, False)):
        other = action.clone()
        other[step] += 0.5
        assert (model.loss(observation, mask, other, torch.Generator().manual_seed(0)).loss == base).item() is same


def test_padded_dimensions_are_not_reconstructed() -> None:
    model = WorldModel(SMALL, "state", STATE_PAD, ACTION_PAD)
    observation, mask, action = _chunk()
    model.loss(observation, mask, action, torch.Generator().manual_seed(0)).loss.backward()
    last = model.decoder.layers[-1]
    assert last.weight.grad[10:].abs().sum() == 0 and last.weight.grad[:10].abs().sum() > 0


def test_free_nats_are_of_every_step() -> None:
    """Steps whose posterior is far from the prior are not excused by others that cost nothing."""
    torch.manual_seed(0)
    model = WorldModel(SMALL, "state", STATE_PAD, ACTION_PAD)
    observation, mask, action = _chunk(length=12)
    with torch.no_grad():
        model.rssm.posterior_head.weight.mul_(1.6)
    result = model.loss(observation, mask, action, torch.Generator().manual_seed(0))
    assert result.metrics["kl"] < FREE_NATS
    result.loss.backward()
    assert model.rssm.prior_head[0].weight.grad.abs().sum() > 0


def test_free_nats_are_a_floor() -> None:
    model = WorldModel(SMALL, "state", STATE_PAD, ACTION_PAD)
    observation, mask, action = _chunk()
    result = model.loss(observation, mask, action, torch.Generator().manual_seed(0))
    assert result.metrics["kl"] < FREE_NATS  # an untrained posterior is close to its prior
    assert result.loss.item() == pytest.approx(result.metrics["reconstruction"].item() + 1.1 * FREE_NATS, rel=1e-5)


@pytest.mark.parametrize("observation", ["state", "pixels"])
def test_open_loop_sees_the_context_and_the_actions_only(observation: str) -> None:
    model = WorldModel(SMALL, observation, STATE_PAD, ACTION_PAD)  # type: ignore[arg-type]
    if observation == "pixels":
        truth = model.prepare(torch.randint(0, 256, (6, 3, 64, 64, 3), dtype=torch.uint8))
    else:
        truth = _chunk()[0]
    action = _chunk()[2]

    def predict(truth: Tensor, action: Tensor) -> Tensor:
        return model.open_loop(truth, action, 2, torch.Generator().manual_seed(0))

    base = predict(truth, action)
    assert base.shape == (4, *truth.shape[1:])
    later, sooner, acted = truth.clone(), truth.clone(), action.clone()
    later[2:] = 0
    sooner[1] = 0
    acted[5] = -acted[5]
    assert torch.equal(predict(later, action), base)
    assert not torch.equal(predict(sooner, action), base)
    assert torch.equal(predict(truth, acted)[:-1], base[:-1]) and not torch.equal(predict(truth, acted)[-1], base[-1])


def test_the_world_model_learns_to_predict_a_controlled_system() -> None:
    """A damped oscillator pushed by its action: better than persistence and than the mean, from the prior."""
    generator = torch.Generator().manual_seed(0)

    def episodes(count: int) -> tuple[Tensor, Tensor, Tensor]:
        action = torch.zeros(20, count, ACTION_PAD)
        action[:, :, 0] = torch.rand(20, count, generator=generator) * 2 - 1
        x, v = torch.randn(count, generator=generator), torch.randn(count, generator=generator)
        rows = []
        for step in range(20):
            v = 0.95 * v - 0.3 * x + 0.5 * action[step, :, 0]
            x = x + 0.3 * v
            rows.append(torch.stack([x, v], -1))
        observation = torch.zeros(20, count, STATE_PAD)
        observation[:, :, :2] = torch.stack(rows)
        mask = torch.zeros(count, STATE_PAD)
        mask[:, :2] = 1
        return observation, mask, action

    torch.manual_seed(0)
    size = WorldModelSize(deter=48, hidden=32, stoch=4, classes=8, blocks=4, units=32, layers=2)
    model = WorldModel(size, "state", STATE_PAD, ACTION_PAD)
    optimizer = Optimizer(model.parameters(), learning_rate=3e-3, eps=1e-5, grad_clip=100.0, weight_decay=0.0)
    for _ in range(250):
        optimizer.step(model.loss(*episodes(16), generator).loss)
    truth, _, action = episodes(256)
    predicted = model.open_loop(truth, action, 5, generator)[:, :, :2]
    error = ((predicted - truth[5:, :, :2]) ** 2).mean()
    persistence = ((truth[4:5, :, :2] - truth[5:, :, :2]) ** 2).mean()
    spread = truth[5:, :, :2].var()
    assert error < 0.6 * spread and error < 0.6 * persistence


@pytest.mark.slow
def test_one_update_of_the_papers_model_runs() -> None:
    model = WorldModel(WorldModelSize(), "pixels", STATE_PAD, ACTION_PAD)
    optimizer = Optimizer(model.parameters(), learning_rate=1e-4, eps=1e-5, grad_clip=100.0, weight_decay=1e-6)
    observation = model.prepare(torch.randint(0, 256, (2, 1, 64, 64, 3), dtype=torch.uint8))
    result = model.loss(observation, None, torch.rand(2, 1, ACTION_PAD), torch.Generator().manual_seed(0))
    before = model.rssm.recurrence.gates.bias.detach().clone()
    optimizer.step(result.loss)
    assert torch.isfinite(result.loss) and not torch.equal(before, model.rssm.recurrence.gates.bias)
