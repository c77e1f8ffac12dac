"""The actors of a run, seen from the driver: created, brought back from a checkpoint and ended together."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence
from pathlib import Path

import rlray
from rlray.algos.types import Place
from rlray.config.schema import RunConfig
from rlray.envs.types import EnvSpec
from rlray.train import seats, seeds
from rlray.train.checkpoint import checked_manifest, load_checkpoint
from rlray.train.env_failures import EnvFailures
from rlray.train.evaluator import EvalResult, EvaluatorSetup
from rlray.train.failures import NoRoom
from rlray.train.fleet import Fleet
from rlray.train.groups import env_of, group_by_number
from rlray.train.keeping import Keeper
from rlray.train.learner import LearnerSetup
from rlray.train.learning import LearnerLink
from rlray.train.measuring import Evaluation, EvaluatorLink
from rlray.train.plan import Plan
from rlray.train.players import Players
from rlray.train.replaying import ReplayedLearnerLink
from rlray.train.run_state import RunState
from rlray.train.simulator import SimulatorSetup
from rlray.train.sources import AlgorithmSource, EnvSource
from rlray.train.task_fleet import TaskFleet
from rlray.train.trials import TrialSetup

log = logging.getLogger(__name__)


class Crew:
    """Who plays (simulators or tasks), learner, evaluator, and who keeps checkpoints of them all."""

    def __init__(
        self,
        config: RunConfig,
        env: EnvSource,
        spec: EnvSpec,
        plan: Plan,
        checkpoints: Path,
        state: RunState,
    ) -> None:
        self._state = state
        self._seed = config.seed
        self._sync = config.mode == "sync"
        algorithm = AlgorithmSource.of(config)
        run_folder = checkpoints.absolute().parent
        folder = str(run_folder / "failures")
        cpus, gpus = plan.learner_cpus, plan.learner_gpus
        steps, keep_replay = config.stop.steps, config.checkpoint.replay
        failures = [
            EnvFailures(group.max_env_failures, f"{config.group_key(index)}.max_env_failures")
            for index, group in enumerate(config.groups)
        ]
        setup = LearnerSetup(spec, algorithm, config.seed, steps, cpus, gpus, folder, keep_replay)
        self.learner = ReplayedLearnerLink(setup, self._sync) if algorithm.has_replay else LearnerLink(setup)
        self.players = _players(config, env, spec, algorithm, plan, folder, failures)
        videos = run_folder / "videos" if config.eval.video else None
        self.evaluator = EvaluatorLink(
            EvaluatorSetup(env, algorithm, plan.evaluator_cpus, config.eval.explore), failures[0], videos
        )
        self.keeper = Keeper(checkpoints, config.checkpoint.keep)

    def start(self) -> None:
        """Begin at the beginning. Raises: NoRoom; the errors of the learner."""
        self._seat_learner()
        self.players.begin()
        log.info("%s", self.learner.start(self.players.shared)[0])

    def evaluate(self, episodes: int) -> None:
        """Begin an evaluation of the newest weights."""
        seed = seeds.integer(seeds.sequence(self._seed, seeds.Role.EVALUATOR, self._state.evaluations))
        self._state.evaluations += 1
        steps, gradients = self._state.progress.steps, self.learner.gradients()
        self.evaluator.launch(Evaluation(self.learner.weights, steps, episodes, seed, gradients))

    def evaluation(self) -> tuple[Evaluation, EvalResult] | None:
        """The evaluation that has ended, with the histograms of the learner's gradients; None where it is left out."""
        ended = self.evaluator.collect()
        if ended is not None and ended[0].gradients is not None:
            ended[1].histograms.update(self.learner.get(ended[0].gradients))
        return ended

    def save(self) -> None:
        """Begin a checkpoint; the learner must have reported on all it was given and, ``mode: sync``, nobody play."""
        steps, asked = self._state.progress.steps, self.evaluator.asked
        simulators = self.players.snapshot(steps) if self._sync else []
        run = self._state.save(self.players.state(), asked)
        evaluated = None if asked is None else asked.weights
        self.keeper.make(steps, lambda path: self.learner.save(path, run, evaluated, simulators))

    def settle_checkpoint(self) -> bool:
        """Wait for the checkpoint that is being made, if any; returns whether there is a new one."""
        return self.keeper.settle(self.learner.get)

    def restore(self, checkpoint: str | None, clock: bool) -> None:
        """Bring everything to where it was in ``checkpoint``, or to the beginning. The learner must not be started.

        Simulators that are playing, ``mode: async``, go on; what they have played is withdrawn. Where a cluster has no
        room for the learner, they make room.

        Args:
            clock: whether the time goes on from there, too.

        Raises: CheckpointError where it cannot be read; NoRoom; the errors of the learner and the environments.
        """
        self._seat_learner()
        saved = None if checkpoint is None else load_checkpoint(checkpoint, ["run"])["run"]
        self._state.load(saved, clock)
        line, replay = self.learner.start(self.players.shared, checkpoint)
        if checkpoint is not None:
            line += f"; goes on from {checkpoint}, step {self._state.progress.steps:,}"
        if replay is False:
            line += ", which holds no replay: it fills anew"
        log.info("%s", line)
        if self.players.playing and not self._sync:
            self.players.go_on()
        else:
            fleet = None if saved is None else saved["fleet"]
            self.players.restore(
                fleet, checkpoint, self._snapshots(checkpoint), self._state.progress.steps, not self._sync
            )
        if checkpoint is not None and saved is not None and saved["evaluating"] is not None:
            weights = rlray.put(load_checkpoint(checkpoint, ["evaluated"])["evaluated"])
            self.evaluator.launch(Evaluation(weights, **saved["evaluating"]))

    def close(self) -> None:
        """End all actors at once."""
        for part in (self.players, self.evaluator, self.learner):
            part.close()

    def _seat_learner(self) -> None:
        """Wait for room for the learner, on a cluster; where there is none, simulators end, to begin anew after it."""
        if self.learner.has_room(seats.NOTICE_SECONDS):
            return
        lacking = f"no room for the learner with {self.learner.asks}: {seats.room()}"
        log.warning("%s. Simulators make room for it, and the run waits for a node where there is some", lacking)
        self.players.close()
        if not self.learner.has_room(seats.PATIENCE_SECONDS):
            raise NoRoom(
                f"for {seats.PATIENCE_SECONDS:g} s {lacking}; add such a node, or lower learner.num_cpus or "
                "learner.num_gpus"
            )

    def _snapshots(self, checkpoint: str | None) -> set[int]:
        """The simulators whose states are in ``checkpoint``."""
        if checkpoint is None or not self._sync:
            return set()
        names = checked_manifest(Path(checkpoint))
        return {number for number in range(len(self.players)) if f"simulator_{number}.json" in names}


def _players(
    config: RunConfig,
    env: EnvSource,
    spec: EnvSpec,
    algorithm: AlgorithmSource,
    plan: Plan,
    folder: str,
    failures: Sequence[EnvFailures],
) -> Players:
    """Tasks where the algorithm has trials, else simulators; ``failures`` are those of each group."""
    groups, group_of = config.groups, group_by_number(config.groups)
    if algorithm.has_trials:
        told = TrialSetup(uuid.uuid4().hex, env, spec, algorithm, config.seed, groups[0].envs, folder)
        return TaskFleet(told, plan.groups[0].simulators, plan.groups[0].cpus, failures[0])
    keep_episodes = config.checkpoint.episodes == "keep"
    sources = [env_of(group, env) for group in groups]
    envs_of = [groups[index].envs for index in group_of]

    def simulator(number: int, life: int, stream: int) -> SimulatorSetup:
        index = group_of[number]
        group, share = groups[index], plan.groups[index]
        who = (number, life, stream, config.seed, group.envs, group.fragment_length, share.cpus)
        name = group.name if len(groups) > 1 else None
        place = Place(sum(envs_of[:number]), group.envs, sum(envs_of))
        return SimulatorSetup(sources[index], algorithm, *who, folder, keep_episodes, place, name, group.realtime_hz)

    steps = [groups[index].envs * groups[index].fragment_length for index in group_of]
    return Fleet(simulator, steps, [failures[index] for index in group_of])
