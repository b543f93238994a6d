"""Every loss against numbers worked out by hand."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from running.small import silent

from baselines import toy
from wpt_bench.baselines.cql import calibrated, conservative_gap
from wpt_bench.baselines.explore import optimistic
from wpt_bench.baselines.iql import advantage_weight, expectile_loss
from wpt_bench.baselines.mt_bc import cloning_loss
from wpt_bench.baselines.networks import Eyes, Gaussian, SquashedGaussian, squared_error
from wpt_bench.baselines.soft_actor_critic import SoftActorCritic
from wpt_bench.baselines.td3_bc import td3_bc_loss
from wpt_bench.data.views import DataView
from wpt_bench.protocol import DISCOUNT, DataAccess

EYES = Eyes(width=3, pixels=False, channels=0)


def test_the_expectile_weighs_what_lies_below_less() -> None:
    # 0.7 * 2^2 = 2.8 above, 0.3 * 1^2 = 0.3 below
    assert float(expectile_loss(torch.tensor([2.0, -1.0]), 0.7)) == pytest.approx((2.8 + 0.3) / 2)


def test_advantages_weigh_exponentially_up_to_a_limit() -> None:
    weight = advantage_weight(torch.tensor([0.0, 1.0, 2.0]), 3.0, 100.0)
    assert weight.tolist() == pytest.approx([1.0, 20.0855, 100.0], rel=1e-4)  # e^6 = 403 is cut


@pytest.mark.parametrize("name", ["iql", "iql-finetune", "mt-iql"])
def test_iqls_advantages_are_told_in_the_spread_of_the_datas_returns(name: str, tmp_path: Path) -> None:
    method = toy.method(name)
    made = toy.agent(method, "state", tmp_path)
    made.offline(silent)
    returns: dict[str | None, list[float]] = {}
    for episode in toy.episodes(method, "state"):
        returns.setdefault(episode.task if made.tasks else None, []).append(
            float(episode.reward[1:].sum()) * made.sight.reward_scale
        )
    steps = made.context.task.agent_steps
    expected = [steps / (max(its) - min(its)) for its in returns.values()]
    assert made.standard.tolist() == pytest.approx(expected, rel=1e-4) and len(expected) == (2 if made.tasks else 1)


def test_returns_that_are_all_one_leave_advantages_as_they_are(tmp_path: Path) -> None:
    made = toy.agent(toy.method("iql"), "state", tmp_path)
    episodes = toy.episodes(toy.method("iql"), "state", count=1)
    made.context = dataclasses.replace(made.context, data=DataView(DataAccess.LABELLED, episodes))
    assert made.standard.tolist() == [1.0]


def test_cqls_gap_is_a_log_sum_exp_over_drawn_actions_less_the_datas_value() -> None:
    value = torch.tensor([[[1.0], [2.0]]])  # one member, two probes, one state
    density = torch.log(torch.tensor([[0.5], [0.25]]))
    # ln(e^1 / 0.5 + e^2 / 0.25) = ln(5.4366 + 29.5562) = 3.5551
    assert float(conservative_gap(value, density, torch.tensor([[1.5]]))) == pytest.approx(3.5551 - 1.5, abs=1e-4)


def test_cal_ql_pushes_the_policys_values_no_lower_than_the_datas_return() -> None:
    value = torch.tensor([[[1.0, 1.0], [2.0, 2.0], [8.0, 8.0]]])  # a uniform probe, then two of the policy
    to_go = torch.tensor([5.0, -math.inf])  # the second state's episode is unfinished
    assert calibrated(value, 1, to_go).tolist() == [[[1.0, 1.0], [5.0, 2.0], [8.0, 8.0]]]


def test_td3_bc_scales_values_by_their_mean_size() -> None:
    value = torch.tensor([1.0, -3.0])  # mean |Q| = 2, lambda = 2.5 / 2 = 1.25
    action = torch.tensor([[0.5, 9.0], [0.0, 0.0]])
    data_action = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    mask = torch.tensor([[1.0, 0.0], [1.0, 1.0]])  # three real numbers: (0.25 + 1 + 0) / 3
    loss = td3_bc_loss(value, action, data_action, mask, torch.tensor([4, 4]), 2.5)
    assert float(loss) == pytest.approx(1.25 / 3 - 1.25 * -1.0)
    # Of two tasks each by its own: lambda is 2.5 / 1 and 2.5 / 3.
    loss = td3_bc_loss(value, action, data_action, mask, torch.tensor([0, 2]), 2.5)
    assert float(loss) == pytest.approx(1.25 / 3 - (2.5 * 1.0 + 2.5 / 3 * -3.0) / 2)


def test_cloning_counts_real_dimensions_alone() -> None:
    action = torch.tensor([[0.5, 9.0], [0.0, 1.0]])
    mask = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    assert float(cloning_loss(action, torch.zeros(2, 2), mask)) == pytest.approx((0.25 + 0 + 1) / 3)


def test_critics_errors_are_averaged_over_rows_and_summed_over_members() -> None:
    value = torch.tensor([[1.0, 2.0], [3.0, 5.0]])  # errors 0, 1 and 2, 4
    assert float(squared_error(value, torch.tensor([1.0, 1.0]))) == pytest.approx((0 + 1) / 2 + (4 + 16) / 2)


def test_optimism_adds_the_predictors_deviation() -> None:
    # means 2 and 1; deviations 1 and 0
    assert optimistic(torch.tensor([[1.0, 1.0], [3.0, 1.0]]), 0.5).tolist() == [2.5, 1.0]


def test_the_squashed_density_is_that_of_the_change_of_variables() -> None:
    torch.manual_seed(0)
    actor = SquashedGaussian(EYES, 8, 1, 2).double()
    feature = torch.randn(50, 3, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    torch.set_default_dtype(torch.float64)
    try:
        action, log_prob = actor.sample(feature, generator)
    finally:
        torch.set_default_dtype(torch.float32)
    mean, log_std = actor(feature)
    normal = torch.distributions.Normal(mean, log_std.exp())
    reference = torch.distributions.TransformedDistribution(normal, torch.distributions.TanhTransform())
    assert torch.allclose(log_prob, reference.log_prob(action).sum(-1), atol=1e-6)


def test_a_gaussians_density_leaves_padded_dimensions_out() -> None:
    actor = Gaussian(EYES, 8, 1, 2)
    feature, action = torch.zeros(1, 3), torch.tensor([[0.3, 0.9]])
    mean = actor(feature)
    by_hand = -0.5 * (0.3 - float(mean[0, 0].detach())) ** 2 - 0.5 * math.log(2 * math.pi)  # deviation 1
    assert float(actor.log_prob(feature, action, torch.tensor([[1.0, 0.0]])).detach()) == pytest.approx(by_hand)


def test_the_target_takes_the_least_of_a_random_subset(tmp_path: Path) -> None:
    rlpd = toy.agent(toy.method("rlpd"), "state", tmp_path, members=4, subset=2, entropy_in_target=False)
    assert isinstance(rlpd, SoftActorCritic)
    last = rlpd.slow_critic.module.ensemble.layers[-1]
    last.weight.zero_()
    last.bias.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]).view(4, 1, 1))
    batch = rlpd.data.sample(1, np.random.default_rng(0), "cpu")
    feature = torch.zeros(1, 3)
    targets = [rlpd.target(batch, feature, torch.Generator().manual_seed(seed)) for seed in range(600)]
    drawn = [round(float(target - batch.reward) / DISCOUNT, 3) for target in targets]
    # of the six pairs three hold the first member, two more the second
    assert [drawn.count(value) / 600 for value in (1.0, 2.0, 3.0)] == pytest.approx([3 / 6, 2 / 6, 1 / 6], abs=0.06)
    assert set(drawn) == {1.0, 2.0, 3.0}


def test_the_target_holds_the_entropy_of_the_next_action(tmp_path: Path) -> None:
    sac = toy.agent(toy.method("sac"), "state", tmp_path, temperature=0.5)
    assert isinstance(sac, SoftActorCritic)
    toy.fill(sac, "state")
    last = sac.slow_critic.module.ensemble.layers[-1]
    last.weight.zero_()
    last.bias.fill_(2.0)
    batch = sac.replay.sample(4, np.random.default_rng(0), "cpu")
    feature = torch.randn(4, 3)
    target = sac.target(batch, feature, torch.Generator().manual_seed(3))
    _, log_prob = sac.actor.sample(feature, torch.Generator().manual_seed(3))
    assert torch.allclose(target, batch.reward + DISCOUNT * (2.0 - 0.5 * log_prob.detach()))
