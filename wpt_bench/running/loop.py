"""The one interaction loop: every method trains, is evaluated, recorded and checkpointed here and nowhere else."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import gymnasium as gym
import msgspec
import numpy as np
import safetensors
import safetensors.numpy
from filelock import AcquireReturnProxy, FileLock, Timeout
from numpy.typing import NDArray

from wpt_bench import records, registry
from wpt_bench.data.store import Dataset
from wpt_bench.data.views import grant
from wpt_bench.profiles import Subset
from wpt_bench.protocol import (
    WARM_UP,
    Agent,
    AgentContext,
    DataAccess,
    Diagnosed,
    Progress,
    UserError,
    episode_seed,
)
from wpt_bench.records import Episode, Identity, Run
from wpt_bench.running import checkpoint, inputs
from wpt_bench.running.plan import Layout, new_run, resolve, shared_tasks
from wpt_bench.running.provenance import peak_memory, provenance
from wpt_bench.running.sequence import EARLIER, WEIGHTS, before_in_sequence, inherited, replay_file, seen_before
from wpt_bench.running.stages import whole_weights
from wpt_bench.running.subset import choose, mixed
from wpt_bench.running.tracking import Trackers

LOCK_SECONDS = 1.0
"""How long a lock may be held by somebody who only looks whether it is."""

_Count = Annotated[int, msgspec.Meta(ge=0)]


class Diverged(UserError):
    """A loss or a weight is not finite."""


class Busy(UserError):
    """Another process is making the run."""


class _Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What a checkpoint holds beside the agent's state, which is under ``agent/``.

    Attributes:
        replay: digest of every training episode's file, by index: the files themselves never change.
        rows_length, rows: of ``episodes.jsonl``, its length in bytes and the SHA-256 of so much of it.
        env_steps, updates, wall_clock, diagnostics: as in ``records.Run``.
    """

    env_steps: _Count
    updates: _Count
    replay: list[str]
    rows_length: _Count
    rows: str
    wall_clock: float
    diagnostics: dict[str, Any]


def execute(
    identity: Identity,
    layout: Layout,
    data: Path | None,
    progress: Progress,
    *,
    device: str = "cpu",
    checkpoint_seconds: float = checkpoint.SECONDS,
    episodes: int | None = None,
    patient: bool = False,
    trackers: Sequence[str] = (),
) -> bool:
    """Makes one run, or goes on with it from its last checkpoint; returns False, at once, if it is done.

    Everything a run draws at random is a function of its seed and of counts (episodes, updates), so an interrupted run
    ends with the returns and weights of an uninterrupted one. With ``episodes`` it stops, at a checkpoint, after so
    many training episodes and whatever evaluation follows them; its schedules remain those of the whole budget.
    Where another process makes this run, ``patient`` waits for it; else Busy is raised. ``trackers`` show its curves.
    """
    folder = layout.runs / records.digest(identity)
    records.make_folder(folder)
    with ExitStack() as stack:
        stack.enter_context(lock(folder, patient=patient))
        records.sweep(folder)
        run = records.read_run(folder) if (folder / records.RECORD).exists() else new_run(identity)
        if run.id != folder.name:
            raise UserError(f"{folder} holds the record of another run, {run.id}; delete it to make this one.")
        if run.status == "done":
            return False
        _Loop(run, layout, data, progress, device, checkpoint_seconds, stack).go(episodes, trackers, stack)
        return True


def lock(folder: Path, *, patient: bool = False) -> AcquireReturnProxy[Any]:
    """The lock of a run's folder, held while the run is made and let go by the system when its process dies.

    It is held already when it is returned, until the end of a ``with``. Raises Busy if another process holds it, unless
    ``patient`` waits.
    """
    try:
        return FileLock(folder / ".lock").acquire(timeout=-1 if patient else LOCK_SECONDS)
    except Timeout:
        raise Busy(f"{folder} is being worked on by another process; wait for it or stop it.") from None


@dataclass(frozen=True)
class _Played:
    """Evaluation episodes in lockstep: of N episodes T agent steps, as ``protocol.Diagnosed`` takes them.

    Attributes:
        observation, action, reward: ``(T + 1, N, ...)``; row 0 of the latter two is zero.
        success: 0.0 or 1.0 ``(T, N)``.
        returns: undiscounted, float64 ``(N,)``.
    """

    observation: NDArray[Any]
    action: NDArray[np.float32]
    reward: NDArray[np.float32]
    success: NDArray[np.float64]
    returns: NDArray[np.float64]


class _Loop:
    def __init__(
        self,
        run: Run,
        layout: Layout,
        data: Path | None,
        progress: Progress,
        device: str,
        checkpoint_seconds: float,
        stack: ExitStack,
    ) -> None:
        self.run, self.progress, self.checkpoint_seconds = run, progress, checkpoint_seconds
        identity = self.identity = run.identity
        self.folder = layout.runs / run.id
        self.method = registry.method(identity.method)
        self.task = registry.task(identity.suite, identity.task)
        self.settings: Any = resolve(self.method, identity.settings)
        suite = self.suite = inputs.suite(identity.suite, identity.protocol["inputs"])
        self.env = suite.make(self.task, identity.observation)
        episodes = identity.protocol["evaluation_episodes"]
        self.evaluation_envs = [suite.make(self.task, identity.observation) for _ in range(episodes)]
        for env in [self.env, *self.evaluation_envs]:
            stack.callback(env.close)
        self.dataset: Dataset | None = None
        self.indices: list[int] = []
        """Episodes of the data set that there are for this run."""
        if self.method.data_access != DataAccess.NONE:
            if data is None:
                raise UserError(f"{self.method.name} needs offline data; run `wpt-bench data collect` first.")
            self.dataset = Dataset.open(data)
            self.indices = self._choose(self.dataset)
        before = before_in_sequence(identity, layout)
        weights = whole_weights(layout, identity.stage) if identity.stage else None
        # What all tasks share was trained before, on data that a task's own run has no more use for.
        access = DataAccess.NONE if self.method.shared else self.method.data_access
        self.agent: Agent = self.method.build(
            AgentContext(
                task=self.task,
                observation=identity.observation,
                units=suite.units(self.task.embodiment),
                seed=identity.seed,
                budget=identity.budget,
                data=grant(
                    *(self.dataset, access, self.task, suite, identity.observation),
                    progress=progress,
                    indices=self.indices,
                    earlier=seen_before(before, layout, suite.units(self.task.embodiment)),
                ),
                settings=self.settings,
                pretrained=weights if self.method.pretrained else None,
                initial_observation=self.env.reset(seed=episode_seed(identity.seed, "train", 0))[0],
                device=device,
                precision=identity.protocol["precision"],
                tasks=shared_tasks(suite, self.dataset) if self.method.shared and self.dataset else (self.task,),
                inherited=inherited(before, layout),
            )
        )
        self.shared_weights = weights if self.method.shared else None
        self.offline_updates = self.method.offline_updates(self.settings)
        self.every = max(1, round(identity.protocol["evaluation_every"] * identity.budget))
        self.env_steps = self.updates = self.rows_length = 0
        self.replay: list[str] = []
        self.wall_clock, self.started = 0.0, time.monotonic()
        self.saved = self.started

    def _choose(self, dataset: Dataset) -> list[int]:
        identity, subset = self.identity, msgspec.convert(self.identity.subset, Subset)
        if self.method.shared:  # it learned before, and sees none of it here
            return []
        indices = choose(dataset, subset, self.task.scene)
        if subset.irrelevant is None:
            return indices
        mixture = (identity.observation, subset.irrelevant, identity.settings["retrieved"], identity.seed)
        return mixed(dataset, indices, self.task, *mixture)

    def go(self, episodes: int | None, trackers: Sequence[str], stack: ExitStack) -> None:
        """The run from where it stands to its end, or to the end of its first ``episodes`` training episodes."""
        state, problems = checkpoint.load(self.folder, self._check)
        self.run.notes += checkpoint.note(problems, state is not None)
        self.run.provenance = provenance(self.identity)
        self.run.status, self.run.error = "running", None
        if state is None:
            for name in (records.ROWS, "replay"):
                records.discard(self.folder / name)
            records.write_run(self.folder, self.run)
            self._prepare()
        else:
            self._restore(state)
            records.write_run(self.folder, self.run)
        begin = self.env_steps + 1 if self.rows_length else 0
        self.trackers = Trackers(trackers, self.folder, self.run, begin)
        stack.callback(self.trackers.close)
        while self.updates < self.offline_updates:
            self._offline_update()
        if not self.rows_length:
            self._evaluate()
            self._evaluate_prior()
            self._save()
        while self.method.online and self.env_steps < self.identity.budget:
            if len(self.replay) == episodes:
                self._save()
                return
            self._train_episode()
            if self.env_steps % self.every < self.task.episode_length or self.env_steps == self.identity.budget:
                self._evaluate()
            if time.monotonic() - self.saved >= self.checkpoint_seconds:
                self._save()
        self._finish()

    def _prepare(self) -> None:
        """What comes before the first update; what the agent retrieved is judged here, for people's eyes only.

        The record has indices into the data set; episodes of earlier tasks follow its last one.
        """
        if self.shared_weights is not None:
            self.agent.load_state_dict(checkpoint.decode(self.shared_weights))
            self.updates = self.offline_updates
            return
        diagnostics = self.run.diagnostics = self.agent.offline(self.progress)
        if self.dataset is not None and diagnostics.get("retrieved"):
            total = len(self.dataset.episodes)
            known = [*self.indices, *range(total, total + max(diagnostics["retrieved"]) + 1)]
            retrieved = [known[one] for one in diagnostics["retrieved"]]
            stored = [self.dataset.episodes[index] for index in retrieved if index < total]
            online = Counter({EARLIER: len(retrieved) - len(stored)})
            scenes = Counter(sorted(episode.scene for episode in stored)) + online
            bodies = Counter(sorted(episode.embodiment for episode in stored)) + online
            diagnostics["retrieved"] = retrieved
            diagnostics["retrieval_precision"] = scenes[self.task.scene] / len(retrieved)
            diagnostics["retrieved_scenes"] = dict(scenes)
            diagnostics["retrieved_embodiments"] = dict(bodies)

    def _offline_update(self) -> None:
        """One update on the offline data; the last one's metrics stay in the record."""
        self.run.diagnostics["offline_metrics"] = self._update()
        self.progress(self.updates / self.offline_updates, f"{self.updates:,} offline updates")
        if time.monotonic() - self.saved >= self.checkpoint_seconds:
            self._save()

    # One episode

    def _train_episode(self) -> None:
        index, repeat = len(self.replay), self.task.action_repeat
        seed = episode_seed(self.identity.seed, "train", index)
        observation, _ = self.env.reset(seed=seed)
        carry = self.agent.begin(1, seed=seed, evaluation=False)
        self.agent.observe(observation, None, 0.0)
        rows: list[tuple[NDArray[Any], NDArray[np.float32], float]] = [
            (observation, np.zeros(self.task.action_dim, np.float32), 0.0)
        ]
        success: list[float] = []
        metrics: dict[str, list[float]] = {}
        truncated = False
        while not truncated:
            action, carry = self._act(carry, rows[-1][0][None], evaluation=False)
            observation, reward, _, truncated, info = self.env.step(action[0])
            self.agent.observe(observation, action[0], float(reward))
            rows.append((observation, action[0], float(reward)))
            success.append(float(info["success"]))
            self.env_steps += repeat
            for _ in range(self._updates_due()):
                for name, value in self._update().items():
                    metrics.setdefault(name, []).append(value)
        own = self.agent.episode_metrics(carry)
        self._append(
            [
                Episode(
                    kind="train",
                    env_step=self.env_steps,
                    index=index,
                    episode_return=sum(row[2] for row in rows),
                    success_any=max(success),
                    success_last=success[-1],
                    length=len(success) * repeat,
                    guided_steps=int(own.pop("guided_steps", 0)),
                    updates=self.updates,
                    wall_clock=self._clock(),
                    metrics={name: float(np.mean(values)) for name, values in metrics.items()} | own,
                )
            ]
        )
        self._store(index, rows)
        self.progress(self.env_steps / self.identity.budget, f"{self.env_steps:,} environment steps")

    def _updates_due(self) -> int:
        ratio = self.method.updates_per_step(self.settings)
        steps = (self.env_steps - WARM_UP * self.identity.budget) / self.task.action_repeat
        return max(0, math.floor(ratio * steps) - (self.updates - self.offline_updates))

    def _update(self) -> dict[str, float]:
        metrics = self.agent.update()
        self.updates += 1
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise Diverged(
                    f"{name} of {self.method.name} on {self.task.id}, seed {self.identity.seed}, became {value} at "
                    f"update {self.updates}; try a smaller step size."
                )
        return metrics

    def _evaluate(self) -> None:
        """Episodes in lockstep, other ones at every evaluation, the same for every method."""
        count, seed = len(self.evaluation_envs), self.identity.seed
        carry = self.agent.begin(count, seed=episode_seed(seed, "acting", self.env_steps), evaluation=True)
        played = self._play(carry, self.evaluation_envs)
        told: list[dict[str, float]] = [{} for _ in range(count)]
        if isinstance(self.agent, Diagnosed):
            seed = episode_seed(seed, "diagnosis", 1 + self.env_steps)
            told = self.agent.diagnose(played.observation, played.action, played.reward, seed=seed)
        self._append_played("evaluation", played, told)

    def _evaluate_prior(self) -> None:
        """What the cloned prior can do alone, on the episodes of an evaluation: for people's eyes only."""
        count = len(self.evaluation_envs)
        if not isinstance(self.agent, Diagnosed):
            return
        carry = self.agent.begin_prior(count, seed=episode_seed(self.identity.seed, "diagnosis", 0))
        if carry is not None:
            self._append_played("prior", self._play(carry, self.evaluation_envs), [{} for _ in range(count)])

    def _evaluate_earlier(self) -> None:
        """What is left of the earlier tasks of a sequence, on the episodes that each of them is evaluated on."""
        count = len(self.evaluation_envs)
        for name in self.identity.earlier or ():
            task = registry.task(self.identity.suite, name)
            with ExitStack() as stack:
                envs = [self.suite.make(task, self.identity.observation) for _ in range(count)]
                for env in envs:
                    stack.callback(env.close)
                seed = episode_seed(self.identity.seed, "acting", self.env_steps)
                played = self._play(self.agent.begin(count, seed=seed, evaluation=True), envs)
            self._append_played("earlier", played, [{} for _ in range(count)], name)

    def _play(self, carry: Any, envs: Sequence[gym.Env[Any, Any]]) -> _Played:
        """Evaluation episodes with the actions that follow from a carry.

        Where things stand at the beginning decides much (a quadruped that lies on its back may never rise): no two
        evaluations of a run share a start, so that the area under its curve is an average over starts too.
        """
        count = len(envs)
        first = count * len(self.replay)
        observations = [
            np.stack(
                [
                    env.reset(seed=episode_seed(self.identity.seed, "evaluation", first + index))[0]
                    for index, env in enumerate(envs)
                ]
            )
        ]
        actions = [np.zeros((count, self.task.action_dim), np.float32)]
        rewards, returns, success = [np.zeros(count)], np.zeros(count), []
        for _ in range(self.task.agent_steps):
            action, carry = self._act(carry, observations[-1], evaluation=True)
            steps = [env.step(one) for env, one in zip(envs, action, strict=True)]
            actions.append(action)
            observations.append(np.stack([step[0] for step in steps]))
            rewards.append(np.array([float(step[1]) for step in steps]))
            returns += rewards[-1]
            success.append([float(step[4]["success"]) for step in steps])
        return _Played(
            np.stack(observations),
            np.stack(actions),
            np.stack(rewards).astype(np.float32),
            np.array(success),
            returns,
        )

    def _append_played(
        self,
        kind: Literal["evaluation", "prior", "earlier"],
        played: _Played,
        told: Sequence[Mapping[str, float]],
        task: str = "",
    ) -> None:
        """A row for each episode, with what the agent told of it."""
        clock = self._clock()
        self._append(
            [
                Episode(
                    kind=kind,
                    task=task,
                    env_step=self.env_steps,
                    index=index,
                    episode_return=float(played.returns[index]),
                    success_any=float(played.success[:, index].max()),
                    success_last=float(played.success[-1, index]),
                    length=self.task.episode_length,
                    guided_steps=self.task.agent_steps if kind == "prior" else 0,
                    updates=self.updates,
                    wall_clock=clock,
                    metrics={name: value for name, value in told[index].items() if math.isfinite(value)},
                )
                for index in range(len(played.returns))
            ]
        )

    def _act(self, carry: Any, observation: NDArray[Any], *, evaluation: bool) -> tuple[NDArray[np.float32], Any]:
        """What the agent answers; UserError where a simulator could make nothing of it."""
        answer = self.agent.act(carry, observation, evaluation=evaluation)
        method, wanted = self.identity.method, (len(observation), self.task.action_dim)
        if not isinstance(answer, tuple) or len(answer) != 2:
            raise UserError(f"{method}: act has to return two things, actions {wanted} and the next carry.")
        action = answer[0]
        if np.shape(action) != wanted:
            raise UserError(f"{method}: act returned actions {np.shape(action)} instead of {wanted}, batch first.")
        if not np.isfinite(action).all():
            raise UserError(f"{method}: act returned an action that is not finite after {self.updates:,} updates.")
        return answer

    # What is kept

    def _append(self, episodes: Sequence[Episode]) -> None:
        self.rows_length = records.append_episodes(self.folder, episodes)
        self.trackers.add(episodes)

    def _store(self, index: int, rows: Sequence[tuple[NDArray[Any], NDArray[np.float32], float]]) -> None:
        """One file per training episode: the replay is never part of a checkpoint."""
        observation, action, reward = (np.stack([np.asarray(row[part]) for row in rows]) for part in range(3))
        data = safetensors.numpy.save({"observation": observation, "action": action, "reward": reward})
        path = replay_file(self.folder, index)
        path.parent.mkdir(exist_ok=True)
        records.write_atomic(path, data)
        self.replay.append(checkpoint.digest(data))

    def _save(self) -> None:
        rows = records.rows_digest(self.folder, self.rows_length)
        if rows is None:
            raise UserError(f"{self.folder / records.ROWS} was cut while its run was made; make the run again.")
        kept = _Kept(
            env_steps=self.env_steps,
            updates=self.updates,
            replay=self.replay,
            rows_length=self.rows_length,
            rows=rows,
            wall_clock=self._clock(),
            diagnostics=self.run.diagnostics,
        )
        state = {f"agent/{key}": value for key, value in self.agent.state_dict().items()}
        # It must grow with every save: offline updates, then the evaluation after them, then environment steps.
        progress = self.updates + self.env_steps + bool(self.rows_length)
        checkpoint.save(self.folder, progress, state | msgspec.structs.asdict(kept))
        self._measure()
        records.write_run(self.folder, self.run)
        self.saved = time.monotonic()

    def _check(self, state: Mapping[str, Any]) -> None:
        """Raises Damaged unless all that a checkpoint needs is there, as it was."""
        kept = _kept(state, self.folder)
        if records.rows_digest(self.folder, kept.rows_length) != kept.rows:
            raise checkpoint.Damaged(f"{self.folder / records.ROWS} is not what it was at a checkpoint")
        for index, expected in enumerate(kept.replay):
            path = replay_file(self.folder, index)
            if not path.is_file() or records.sha256(path)[:16] != expected:
                records.discard(path)
                raise checkpoint.Damaged(f"{path} is missing or damaged")

    def _restore(self, state: Mapping[str, Any]) -> None:
        kept = _kept(state, self.folder)
        self.env_steps, self.updates, self.rows_length = kept.env_steps, kept.updates, kept.rows_length
        self.wall_clock, self.run.diagnostics = kept.wall_clock, kept.diagnostics
        if kept.rows_length:
            records.truncate_episodes(self.folder, kept.rows_length)
        else:
            records.discard(self.folder / records.ROWS)
        own = {key.removeprefix("agent/"): value for key, value in state.items() if key.startswith("agent/")}
        try:
            for index in range(len(kept.replay)):
                episode = safetensors.numpy.load_file(replay_file(self.folder, index))
                for step, observation in enumerate(episode["observation"]):
                    action = episode["action"][step] if step else None
                    self.agent.observe(observation, action, float(episode["reward"][step]))
            self.agent.load_state_dict(own)
        except (safetensors.SafetensorError, LookupError, AttributeError, TypeError, ValueError) as error:
            raise UserError(
                f"The checkpoint in {self.folder} is none of {self.method.name} ({type(error).__name__}: {error}); "
                "delete that folder to make the run again."
            ) from error
        self.replay = kept.replay

    def _finish(self) -> None:
        """The final weights stay (those that tasks share, with what they share); outside a sequence the replay goes."""
        if self.shared_weights is None:
            weights = {key: value for key, value in self.agent.state_dict().items() if not key.count("optimizer")}
            records.write_atomic(self.folder / WEIGHTS, checkpoint.encode(weights))
        self._evaluate_earlier()
        self._measure()
        self.run.status = "done"
        left = [path for path in (self.folder / records.ROWS, self.folder / WEIGHTS) if path.is_file()]
        replay = [replay_file(self.folder, index) for index in range(len(self.replay))]
        if self.identity.earlier is not None:
            left += replay
        self.run.files = {path.relative_to(self.folder).as_posix(): records.sha256(path) for path in left}
        records.write_run(self.folder, self.run)
        checkpoint.clear(self.folder)
        if self.identity.earlier is None:
            for path in replay:
                path.unlink(missing_ok=True)
        self.progress(1.0, "done")

    def _measure(self) -> None:
        self.run.updates, self.run.env_steps = self.updates, self.env_steps
        self.run.wall_clock = self._clock()
        self.run.peak_memory = max(self.run.peak_memory, peak_memory())

    def _clock(self) -> float:
        return self.wall_clock + time.monotonic() - self.started


def _kept(state: Mapping[str, Any], folder: Path) -> _Kept:
    try:
        return msgspec.convert(state, _Kept)
    except msgspec.ValidationError as error:
        raise checkpoint.Damaged(f"a checkpoint in {folder} is none of a run ({error})") from error
