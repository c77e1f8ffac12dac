"""What a run can be told, key by key. The text under each field is what `docs/config.md` says about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    PrivateAttr,
    SerializeAsAny,
    Tag,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from rlray.config.code import make_importable
from rlray.config.errors import ConfigError, KeyPath, Origins, Problem
from rlray.config.explain import Sections, problems_of


def _whole(value: Any) -> Any:
    """``1e6`` is a float to YAML, and a whole number to whoever writes it."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(_whole)]
Count = Annotated[int, Field(ge=1), BeforeValidator(_whole)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Amount = Literal["auto"] | Annotated[Finite, Field(ge=0)]


class Section(BaseModel):
    """Common to all parts: no unknown keys, no silent conversions, no changes once made."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True
    )


class SimulatorsConfig(Section):
    """The actors that step environments: one group of equals, or a list of groups that differ (several sources)."""

    name: str = Field(default="main", pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    """What the metrics of a group are called after; the groups of a list need names of their own."""
    env: str | None = Field(default=None, min_length=1)
    """The group's environment, of the same spaces as the run's; null is the run's."""
    env_settings: dict[str, JsonValue] = Field(default_factory=dict)
    """Keyword arguments for it; where it is the run's environment, over the run's, key by key."""
    count: Count = 1
    """How many simulator actors run side by side; for algorithms that play by tasks (`es`), tasks of each round."""
    envs: Count = 8
    """How many environments each simulator, or each task, steps together."""
    fragment_length: Count = 8
    """How many steps of every environment make one fragment, the unit that goes to the learner."""
    num_cpus: Amount = "auto"
    """CPUs of each simulator or task; `auto` is one, or simulators' share of half a machine that is too small."""
    max_env_failures: Whole = Field(default=3, ge=0)
    """Exceptions of the group's environments that a run survives: each costs a fragment and starts its simulator anew.
    Those in evaluations count with the first group's."""
    realtime_hz: Finite | None = Field(default=None, gt=0)
    """Steps of each environment per second of wall-clock time, at most; null is as fast as it goes."""


def _how_many(value: Any) -> str:
    return "several" if isinstance(value, list) else "one"


Groups = Annotated[
    Annotated[SimulatorsConfig, Tag("one")] | Annotated[list[SimulatorsConfig], Tag("several")],
    Discriminator(_how_many),
]
"""A union that is told apart before it is looked into, so that errors speak of what was written."""


class LearnerConfig(Section):
    """The actor that learns."""

    num_cpus: Amount = "auto"
    """CPUs that the learner asks for, and threads that it runs; `auto` is what simulators leave, none beside tasks."""
    num_gpus: Amount = "auto"
    """GPUs that the learner asks for; `auto` is one if the machine has one, none beside tasks."""


class StopConfig(Section):
    """When the run ends: at whichever comes first."""

    steps: Count
    """Agent steps, over all simulators."""
    minutes: Finite | None = Field(default=None, gt=0)
    """Minutes of wall-clock time since the start; null is no limit."""
    eval_return: Finite | None = None
    """The mean return of one evaluation that is good enough; null never ends the run."""
    train_return: Finite | None = None
    """The mean return of the last 100 training episodes that is good enough; null never ends the run."""


class EvalConfig(Section):
    """Episodes played by an actor of its own."""

    every: Count | None = 25_000
    """Agent steps between evaluations; null evaluates at the end only."""
    episodes: Count = 10
    """Episodes in each evaluation on the way."""
    final_episodes: Whole = Field(default=20, ge=0)
    """Episodes of the evaluation after training; 0 leaves it out."""
    explore: bool = False
    """Play as in training, with sampled or random actions: what a policy that draws is worth; false is greedily."""
    video: bool = False
    """Write the first episode of every evaluation to `videos/` and to TensorBoard; needs the extra `video`."""


class CheckpointConfig(Section):
    """What a run can go on from."""

    every: Count | None = 50_000
    """Agent steps between checkpoints; null writes one at the end only."""
    keep: Count = 2
    """How many of the newest checkpoints stay."""
    replay: bool | Literal["auto"] = "auto"
    """Whether they hold what the replay holds; `auto` leaves it out where the disk has no room for it."""
    episodes: Literal["keep", "cut"] = "keep"
    """`mode: sync`: `keep` goes on with running episodes where the environment can; `cut` begins new ones each time."""


class WandbConfig(Section):
    """Weights & Biases: needs the package `wandb`."""

    project: str = Field(min_length=1)
    """The project there."""
    entity: str | None = None
    """The user or team; null is the one that is logged in."""
    mode: Literal["online", "offline"] = "online"
    """`offline` writes into the run folder only, for `wandb sync` later."""


class EngineConfig(Section):
    """What the actors run on."""

    kind: Literal["local", "ray"] = "local"
    """`local`: processes of this machine; `ray`: a Ray cluster, which needs `pip install "rlray[ray]"`."""
    address: str | None = None
    """`kind: ray`: `auto` (this machine's cluster), `host:port`, `ray://host:port`; null or `local-ray`: a new one."""
    num_cpus: Count | None = None
    """CPUs to plan with, where none are running yet; null is all that this process may use."""

    @property
    def joins(self) -> bool:
        """Whether the run joins a cluster that is there, whose nodes know what they have."""
        return self.address not in (None, "local-ray")


def _folders(value: Any) -> Any:
    """One folder stands for a list of one; settings are frozen."""
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


class _NotGiven(BaseModel):
    """Stands for hyperparameters until the algorithm's own settings take its place."""


class RunConfig(Section):
    """One training run, whole: equal configurations make equal runs (`mode: sync`)."""

    name: str = Field(default="run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """What run folders are called after; the file's name without its ending if not given."""
    seed: Whole = Field(default=1, ge=0, lt=2**63)
    """Every random number of the run comes from it."""
    mode: Literal["async", "sync"] = "async"
    """`async` is fast; `sync` is deterministic: the same seed gives the same bits."""
    env: str = Field(min_length=1)
    """A gymnasium id (`ALE/Pong-v5`), `rlray/Pong-v0`, `package.module:Class`, or a registered name."""
    env_settings: dict[str, JsonValue] = Field(default_factory=dict)
    """Keyword arguments for the environment."""
    code: Annotated[tuple[str, ...], BeforeValidator(_folders)] = ()
    """Folders with modules of your own; those beside the file and in the current folder are found by themselves."""
    algo: str
    """A bundled algorithm (`dqn`), or `package.module:MyAlgo`."""
    hyperparameters: SerializeAsAny[BaseModel] = _NotGiven()
    """The algorithm's settings; its own page says what they are."""
    simulators: Groups = SimulatorsConfig()
    learner: LearnerConfig = LearnerConfig()
    stop: StopConfig
    eval: EvalConfig = EvalConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    wandb: WandbConfig | None = None
    """Weights & Biases, besides TensorBoard and `metrics.csv`; null: not there."""
    engine: EngineConfig = EngineConfig()
    run_dir: str = Field(default="runs", min_length=1)
    """The folder in which run folders are made."""

    _origins: Origins = PrivateAttr(default_factory=Origins)

    @property
    def groups(self) -> list[SimulatorsConfig]:
        """The groups of simulators, in order: simulators are numbered through all of them."""
        return self.simulators if isinstance(self.simulators, list) else [self.simulators]

    def group_key(self, index: int) -> str:
        """Where group ``index`` stands: what messages about it begin with."""
        return f"simulators.{index}" if isinstance(self.simulators, list) else "simulators"

    @property
    def has_sources(self) -> bool:
        """Whether groups are told apart in the metrics: where there is a list of them, or one that is paced."""
        return isinstance(self.simulators, list) or self.simulators.realtime_hz is not None

    @classmethod
    def from_dict(
        cls, values: Mapping[str, Any], origins: Origins | None = None, known_problems: Iterable[Problem] = ()
    ) -> RunConfig:
        """The configuration that nested mappings describe; what is left out takes its default.

        Args:
            values: as a YAML file has them. ``hyperparameters`` may also be an instance of the algorithm's settings.
            origins: where the values were written, for the messages.
            known_problems: found before; they are raised together with those found here.

        Raises:
            ConfigError: with every problem at once.
        """
        if not isinstance(values, Mapping):
            raise TypeError(f"a configuration must be a mapping of keys to values, got {type(values).__name__}")
        origins = origins or Origins()
        problems = list(known_problems)
        try:
            config = cls.model_validate(dict(values))
        except ValidationError as error:
            settings = _settings_of(values.get("algo"))
            sections: Sections = {("hyperparameters",): settings} if settings else {}
            raise ConfigError([*problems, *problems_of(error, cls, values, origins, sections)]) from None
        if problems:
            raise ConfigError(problems)
        config._origins = origins
        return config

    def error(self, key: str, message: str) -> ConfigError:
        """An error about the value of ``key`` (dotted), which says where that was written. For checks made later.

        Example::

            raise config.error("env", "unknown environment 'Pnog'") from error
        """
        path: KeyPath = tuple(int(part) if part.isdigit() else part for part in key.split("."))
        return ConfigError([Problem(message, self._origins.of(path))])

    @field_validator("code")
    @classmethod
    def _import_from_there(cls, folders: tuple[str, ...]) -> tuple[str, ...]:
        make_importable(folders)  # before algo and hyperparameters name something that lies there
        return folders

    @field_validator("algo")
    @classmethod
    def _check_algorithm(cls, name: str) -> str:
        from rlray.algos.registry import get_algorithm

        try:
            get_algorithm(name)
        except TypeError as error:  # pydantic takes a ValueError for a finding, a TypeError for a fault of ours
            raise ValueError(str(error)) from error
        return name

    @field_validator("hyperparameters", mode="before")
    @classmethod
    def _check_hyperparameters(cls, value: Any, info: ValidationInfo) -> Any:
        settings = _settings_of(info.data.get("algo"))
        if settings is None:
            return _NotGiven()  # the algorithm is unknown, which is an error already
        if isinstance(value, settings):
            return value
        return settings.model_validate({} if value is None or isinstance(value, _NotGiven) else value)

    @field_validator("simulators")
    @classmethod
    def _check_groups(cls, value: Any, info: ValidationInfo) -> Any:
        from rlray.algos.registry import get_algorithm

        algo = info.data.get("algo")
        if algo is not None and get_algorithm(algo).make_trials is not None:
            return _fit_for_tasks(value, algo)
        if isinstance(value, list):
            if not value:
                raise ValueError("the list holds no group; write at least one, or leave simulators out")
            twice = [name for name, count in Counter(group.name for group in value).items() if count > 1]
            if twice:
                places = [str(index) for index, group in enumerate(value) if group.name == twice[0]]
                raise ValueError(f"groups {' and '.join(places)} are both called {twice[0]!r}; give each its own name")
        return value

    @field_validator("engine")
    @classmethod
    def _check_engine(cls, value: EngineConfig) -> EngineConfig:
        if value.address is not None and value.kind != "ray":
            raise ValueError(f"address is that of a Ray cluster; with kind: {value.kind} leave it out")
        if value.joins and value.num_cpus is not None:
            raise ValueError(f"num_cpus is for a cluster of one's own; the nodes at {value.address} know theirs")
        return value

    @field_validator("eval")
    @classmethod
    def _check_eval(cls, value: EvalConfig, info: ValidationInfo) -> EvalConfig:
        stop = info.data.get("stop")
        if stop is not None and stop.eval_return is not None and value.every is None:
            raise ValueError("every must be a number of steps, not null, since stop.eval_return waits for evaluations")
        return value


def _fit_for_tasks(value: Any, algo: str) -> Any:
    """Where tasks play there is one group, without what only simulators have."""
    if isinstance(value, list):
        raise ValueError(f"must be one group, not a list: {algo} plays whole episodes by tasks, and has one source")
    for name in ("fragment_length", "realtime_hz"):
        given, default = getattr(value, name), SimulatorsConfig.model_fields[name].default
        if given != default:
            raise ValueError(f"{name} {given} has no effect: {algo} plays whole episodes; leave it out")
    return value


def _settings_of(algo: Any) -> type[BaseModel] | None:
    """The model of an algorithm's hyperparameters; None if there is no such algorithm."""
    from rlray.algos.registry import get_algorithm

    try:
        return get_algorithm(algo).config
    except (TypeError, ValueError):
        return None
