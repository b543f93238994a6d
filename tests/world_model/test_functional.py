"""Distributions against numbers worked out by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from wpt_bench.world_model import functional as f


@given(st.floats(-1e4, 1e4))
def test_symexp_undoes_symlog(x: float) -> None:
    value = torch.tensor(x, dtype=torch.float64)
    assert f.symexp(f.symlog(value)).item() == pytest.approx(x, rel=1e-9, abs=1e-12)


def test_symlog_by_hand() -> None:
    assert f.symlog(torch.tensor([math.e - 1, 0.0, -(math.e**2 - 1)])).tolist() == pytest.approx([1.0, 0.0, -2.0])


def _bin(index: int) -> float:
    """The index-th of 255 bins over [-20, 20], in plain units."""
    return f.symexp(torch.tensor(-20 + 40 * index / 254, dtype=torch.float64)).item()


def test_two_hot_loss_on_a_bin_is_its_log_probability() -> None:
    logits = torch.randn(255, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    target = torch.tensor(_bin(140), dtype=torch.float64)
    assert f.two_hot_loss(logits, target).item() == pytest.approx(-torch.log_softmax(logits, -1)[140].item(), rel=1e-6)


def test_two_hot_loss_between_bins_shares_by_distance_in_symlog() -> None:
    logits = torch.randn(255, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    position = -20 + 40 * (130 + 0.25) / 254  # a quarter of the way from bin 130 to 131
    target = f.symexp(torch.tensor(position, dtype=torch.float64))
    log_p = torch.log_softmax(logits, -1)
    expected = -(0.75 * log_p[130] + 0.25 * log_p[131])
    assert f.two_hot_loss(logits, target).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize(("target", "index"), [(1e30, 254), (-1e30, 0)])
def test_two_hot_loss_beyond_the_range_counts_as_the_outer_bin(target: float, index: int) -> None:
    logits = torch.randn(255)
    loss = f.two_hot_loss(logits, torch.tensor(target))
    assert loss.item() == pytest.approx(-torch.log_softmax(logits, -1)[index].item(), rel=1e-4)


def test_a_nan_target_gives_a_nan_loss() -> None:
    assert f.two_hot_loss(torch.zeros(255), torch.tensor(float("nan"))).isnan()


def test_two_hot_mean_of_a_sharp_head_is_the_bin_and_of_a_flat_one_is_zero() -> None:
    logits = torch.full((255,), -1e4)
    logits[150] = 0.0
    assert f.two_hot_mean(logits).item() == pytest.approx(_bin(150), rel=1e-4)
    assert f.two_hot_mean(torch.zeros(255)).item() == pytest.approx(0.0, abs=1e-5)


def test_training_a_two_hot_head_recovers_the_target() -> None:
    logits = torch.zeros(255, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.5)
    for _ in range(200):
        optimizer.zero_grad()
        f.two_hot_loss(logits, torch.tensor(7.3)).backward()
        optimizer.step()
    assert f.two_hot_mean(logits.detach()).item() == pytest.approx(7.3, rel=0.02)


def test_unimix_by_hand() -> None:
    log_p = f.unimix_log_probs(torch.tensor([0.0, math.log(3.0)]))  # softmax 1/4, 3/4
    assert log_p.exp().tolist() == pytest.approx([0.99 * 0.25 + 0.005, 0.99 * 0.75 + 0.005])


def test_categorical_kl_by_hand() -> None:
    q = torch.tensor([[0.5, 0.5], [1.0, 0.0]]).clamp(min=1e-30)
    p = torch.tensor([[0.25, 0.75], [0.5, 0.5]])
    by_hand = 0.5 * math.log(2) + 0.5 * math.log(2 / 3) + math.log(2)
    assert f.categorical_kl(q.log(), p.log()).item() == pytest.approx(by_hand)


def test_samples_follow_the_mixed_probabilities() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.tensor([0.1, 0.2, 0.7]).log().expand(20_000, 3)
    sample, probs = f.sample_one_hot(logits, torch.rand(20_000, generator=generator))
    assert sample.sum(-1).allclose(torch.ones(20_000)) and set(sample.unique().tolist()) == {0, 1}
    assert probs[0].tolist() == pytest.approx([0.1, 0.2, 0.7])
    assert sample.mean(0).tolist() == pytest.approx([0.99 * p + 0.01 / 3 for p in (0.1, 0.2, 0.7)], abs=0.012)


def test_samples_pass_gradients_straight_through_to_the_mixed_probabilities() -> None:
    logits = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, 3, dtype=torch.float64)
    _, probs = f.sample_one_hot(logits.detach(), torch.rand(5))
    (f.unimix_log_probs(logits).exp() * weight).sum().backward()
    assert logits.grad is not None
    assert f.sample_one_hot_backward(weight, probs).allclose(logits.grad)


@pytest.mark.parametrize(("uniform", "picked"), [(0.0, 0), (0.25, 0), (0.252, 1), (0.99, 2), (1.0, 2)])
def test_a_uniform_number_picks_the_class_whose_share_it_falls_in(uniform: float, picked: int) -> None:
    logits = torch.tensor([[0.25, 0.5, 0.25]]).log()  # mixed: 0.2508, 0.4983, 0.2508
    assert f.sample_one_hot(logits, torch.tensor([uniform]))[0].argmax().item() == picked


def _lambda_return_plain(reward: Tensor, value: Tensor, discount: float, lam: float) -> list[float]:
    """The sum over n-step returns, weighted by (1 - lam) lam^(n-1), the last one by what is left."""
    horizon = len(reward)
    result = []
    for start in range(horizon):
        total, left = 0.0, 1.0
        for steps in range(1, horizon - start + 1):
            n_step = sum(discount**k * reward[start + k].item() for k in range(steps))
            n_step += discount**steps * value[start + steps - 1].item()
            weight = left if start + steps == horizon else left * (1 - lam)
            total += weight * n_step
            left *= lam
        result.append(total)
    return result


@given(st.integers(1, 6), st.floats(0, 1), st.floats(0.5, 1), st.integers(0, 1000))
def test_lambda_return_is_the_weighted_sum_of_n_step_returns(
    horizon: int, lam: float, discount: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    reward = torch.randn(horizon, 1, generator=generator, dtype=torch.float64)
    value = torch.randn(horizon, 1, generator=generator, dtype=torch.float64)
    fast = f.lambda_return(reward, value, discount, lam)[:, 0].tolist()
    assert fast == pytest.approx(_lambda_return_plain(reward[:, 0], value[:, 0], discount, lam), rel=1e-9, abs=1e-9)


def test_clamping_keeps_the_gradient() -> None:
    x = torch.tensor([-3.0, 0.5, 2.0], requires_grad=True)
    y = f.clamp_straight_through(x)
    y.sum().backward()
    assert y.tolist() == [-1.0, 0.5, 1.0]
    assert x.grad is not None and x.grad.tolist() == [1.0, 1.0, 1.0]


def test_normal_log_prob_equals_torchs() -> None:
    x, mean, std = torch.randn(5), torch.randn(5), torch.rand(5) + 0.1
    expected = torch.distributions.Normal(mean, std).log_prob(x)
    assert f.normal_log_prob(x, mean, std).allclose(expected, atol=1e-6)


def test_logits_that_are_not_numbers_give_probabilities_that_are_none() -> None:
    """And no index out of range: the harness sees the loss and ends the run in a sentence."""
    _, probs = f.sample_one_hot(torch.full((2, 3), torch.nan), torch.rand(2))
    assert probs.isnan().all()
