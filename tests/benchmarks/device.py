"""All speeds that matter on one device, in one call: ``python tests/benchmarks/device.py --device cuda``.

Prints a table and writes JSON. Nothing here is a run: the time of one is projected from the rates of its parts.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parents[1]))

from wpt import toy

from wpt_bench import profiles, registry
from wpt_bench.protocol import WARM_UP, Units, UserError
from wpt_bench.running.machine import prepare_process
from wpt_bench.wpt.agent import Switches, WPTAgent
from wpt_bench.wpt.settings import Settings

NONE = Switches(pretrain=False, rehearsal=False, guidance=False)
TASK = ("dmc", "quadruped-walk")


def timed(device: str, call: Callable[[], object], seconds: float) -> float:
    """Mean seconds of a call, after two that do not count."""

    def wait() -> None:
        if device.startswith("cuda"):
            torch.cuda.synchronize()

    for _ in range(2):
        call()
    wait()
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        call()
        wait()
        count += 1
    return (time.perf_counter() - started) / count


def ceiling(device: str, width: int, seconds: float) -> float:
    """Floating-point operations per second of a square bfloat16 matrix product."""
    a, b = torch.randn(2, width, width, device=device).bfloat16()
    return 2 * width**3 / timed(device, lambda: a @ b, seconds)


def learner(name: str, device: str, precision: str, **changes: Any) -> tuple[WPTAgent, profiles.Profile]:
    """An agent of a profile's sizes with two episodes of noise behind it."""
    profile = profiles.load(name)
    values = {"world_model": profile.world_model} | profile.settings.get("wpt", {}) | changes
    task = registry.task(*TASK)
    shape = (task.state_dim,) if profile.observation == "state" else (64, 64, 3)
    units = registry.suite(TASK[0]).units(task.embodiment)
    first = np.zeros(shape, np.float32 if profile.observation == "state" else np.uint8)
    agent = toy.agent(
        NONE,
        None,
        msgspec.convert(values, Settings),
        task=task,
        observation=profile.observation,
        precision=precision,
        initial_observation=first,
        budget=2 * task.episode_length,
        units=units if profile.observation == "state" else Units.identity(0),
        device=device,
    )
    rng = np.random.default_rng(0)
    for row in range(2 * (task.agent_steps + 1)):
        seen = rng.normal(size=shape) if profile.observation == "state" else rng.integers(0, 256, shape)
        action = rng.uniform(-1, 1, task.action_dim).astype(np.float32) if row % (task.agent_steps + 1) else None
        agent.observe(seen.astype(first.dtype), action, 0.5)
    return agent, profile


def environment_step(observation: str, seconds: float) -> float | None:
    """Seconds of one agent step of the simulator, with its picture; None without a graphics library."""
    task = registry.task(*TASK)
    try:
        env = registry.suite(TASK[0]).make(task, observation)
    except UserError:
        return None
    env.reset(seed=0)
    action = np.zeros(task.action_dim, np.float32)

    def step() -> None:
        if env.step(action)[3]:
            env.reset(seed=0)

    return timed("cpu", step, seconds)


def measure(name: str, device: str, precision: str, seconds: float, **changes: Any) -> dict[str, Any]:
    """Rates of one profile's update, acting and environment, and the projected time of a run."""
    agent, profile = learner(name, device, precision, **changes)
    with FlopCounterMode(display=False) as flops:
        agent.update()
    update = timed(device, agent.update, seconds)
    observation = agent.context.initial_observation[None]
    carry = agent.begin(1, seed=0, evaluation=True)
    act = timed(device, lambda: agent.act(carry, observation, evaluation=True), seconds)
    step = environment_step(profile.observation, seconds)
    task, grid = registry.task(*TASK), profile.grid(TASK[0])
    steps = grid.budget / task.action_repeat
    updates = steps * (1 - WARM_UP) * agent.settings.updates_per_step
    evaluated = (1 + 1 / grid.evaluation_every) * grid.evaluation_episodes * task.agent_steps
    # Evaluation acts for all its episodes at once; their simulators take their turns.
    acting = (steps + evaluated / grid.evaluation_episodes) * act
    return {
        "profile": name,
        "precision": precision,
        "updates_per_second": 1 / update,
        "flop_per_second": flops.get_total_flops() / update,
        "act_per_second": 1 / act,
        "environment_per_second": None if step is None else 1 / step,
        "projected_minutes": None if step is None else (updates * update + acting + (steps + evaluated) * step) / 60,
    }


def sharing(name: str, device: str, processes: int, seconds: float) -> float:
    """Updates per second of several processes on one device, together."""
    command = [sys.executable, __file__, "--device", device, "--seconds", str(seconds), "--only-updates", name]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(processes)]
    return sum(float(process.communicate()[0]) for process in running)


def table(found: dict[str, Any]) -> list[str]:
    """The rates as a table in Markdown, and what processes reach together."""
    lines = [
        "| profile | precision | updates/s | TFLOP/s | of the ceiling | acts/s | agent steps/s | a run, projected |"
    ]
    lines.append("|---|---|---|---|---|---|---|---|")
    for row in found["rates"]:
        minutes, steps, work = row["projected_minutes"], row["environment_per_second"], row["flop_per_second"]
        cells = (
            row["profile"],
            row["precision"],
            f"{row['updates_per_second']:.2f}",
            f"{work / 1e12:.3f}",
            f"{work / found['ceiling_flop_per_second']:.0%}",
            f"{row['act_per_second']:.0f}",
            "-" if steps is None else f"{steps:.0f}",
            "-" if minutes is None else f"{minutes:.1f} min",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, f"updates/s of so many runs that share the device: {found['shared_updates_per_second']}"]


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--profiles", nargs="+", default=["paper", "lite"])
    parser.add_argument("--precisions", nargs="+", default=["bf16", "fp32"])
    parser.add_argument("--seconds", type=float, default=15.0, help="of each measurement")
    parser.add_argument("--processes", type=int, nargs="*", default=[1, 2, 4, 8], help="runs that share the device")
    parser.add_argument("--width", type=int, default=8192, help="of the matrix product that gives the ceiling")
    parser.add_argument("--json", type=Path, help="where the figures go")
    parser.add_argument("--only-updates", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    prepare_process(1)
    if chosen.only_updates:
        agent, _ = learner(chosen.only_updates, chosen.device, "fp32")
        sys.stdout.write(f"{1 / timed(chosen.device, agent.update, chosen.seconds)}\n")
        return {}
    name = torch.cuda.get_device_name() if chosen.device.startswith("cuda") else "cpu"
    peak = ceiling(chosen.device, chosen.width, chosen.seconds / 3)
    found: dict[str, Any] = {"device": name, "torch": torch.__version__, "ceiling_flop_per_second": peak}
    found["rates"] = [
        measure(profile, chosen.device, precision, chosen.seconds)
        for profile in chosen.profiles
        for precision in chosen.precisions
    ]
    found["shared_updates_per_second"] = {
        count: sharing(chosen.profiles[-1], chosen.device, count, chosen.seconds) for count in chosen.processes
    }
    sys.stdout.write("\n".join([f"{name}: bf16 matrix products at {peak / 1e12:.1f} TFLOP/s", *table(found)]) + "\n")
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=1))
    return found


if __name__ == "__main__":
    main()
