"""How a YAML file describes a network. Loads no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, model_validator

from rlray.algos.settings import Count, Counts, Positive, Settings
from rlray.envs.types import EnvSpec

CONV_PRESETS: dict[str, dict[str, tuple[int, ...]]] = {
    # Mnih et al. 2015, for 84×84 frames
    "nature": {"filters": (32, 64, 64), "kernels": (8, 4, 3), "strides": (4, 2, 1), "hidden": (512,)},
    # Mnih et al. 2013 (arXiv 1312.5602), for 84×84 frames: a third of the multiplications
    "dqn2013": {"filters": (16, 32), "kernels": (8, 4), "strides": (4, 2), "hidden": (256,)},
    # for 42×42 frames: a quarter of the pixels
    "small": {"filters": (32, 32, 32), "kernels": (3, 3, 3), "strides": (2, 2, 2), "hidden": (256,)},
}
KINDS = ("auto", *CONV_PRESETS, "conv", "mlp")


class NetworkConfig(Settings):
    """A network from observation to outputs. In YAML also just its kind: ``network: nature``.

    Of a preset, single fields can be replaced: ``{kind: nature, hidden: 256, dueling: true}``.
    """

    kind: str = "auto"
    """auto, nature, dqn2013, small, conv, mlp, or `package.module:MyNet`, called as `MyNet(spec, outputs)`."""
    filters: Counts | None = None
    """Output channels of each convolution."""
    kernels: Counts | None = None
    """Side of each convolution's square kernel."""
    strides: Counts | None = None
    """Step of each convolution."""
    hidden: Counts | None = None
    """Units of each layer between the convolutions (or the input) and the head; of the last one in each stream."""
    activation: Literal["relu", "tanh"] = "relu"
    """What follows each layer."""
    layer_norm: bool = False
    """Each layer but the last is normalised before its activation, over all that it puts out (arXiv 1607.06450)."""
    dueling: bool = False
    """Split the head into a value and an advantage stream (arXiv 1511.06581)."""
    noisy: bool = False
    """Disturb the head's weights by noise of learned size, so that it explores by itself (arXiv 1706.10295)."""
    noise_sigma: Positive | None = None
    """How large that noise is at first, times 1/√inputs of each layer; null is 0.5."""
    input_norm: Literal["auto", "per_pixel", "divide", "none"] = "auto"
    """per_pixel: mean and deviation measured during warm-up; divide: by 255; auto: per_pixel for bytes, else none."""
    std_floor: Positive | None = None
    """Least deviation that per_pixel divides by, in units of the input; null is 8 for bytes and 0.01 for floats."""
    init: Literal["torch", "orthogonal"] = "torch"
    """First weights: torch's defaults, or orthogonal with gain √2 (0.01 at the output) and no bias."""
    recurrent: Literal["lstm", "gru"] | None = None
    """A layer behind the hidden ones that remembers what it saw of the episode; for ppo, impala and appo."""
    recurrent_size: Count | None = None
    """Its units: what it gives for each step, and (twice for lstm) what it remembers; null is 64."""

    @model_validator(mode="before")
    @classmethod
    def _from_kind(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check(self) -> NetworkConfig:
        if self.kind not in KINDS and ":" not in self.kind:
            raise ValueError(f"network kind {self.kind!r} is none of {', '.join(KINDS)}, nor 'package.module:MyNet'")
        convolutions = (self.filters, self.kernels, self.strides)
        if self.kind == "conv" and None in convolutions:
            raise ValueError("network kind 'conv' needs filters, kernels and strides")
        if (self.kind == "mlp" or ":" in self.kind) and convolutions != (None, None, None):
            raise ValueError(f"network kind {self.kind!r} takes no filters, kernels or strides")
        if ":" in self.kind and (self.hidden is not None or self.dueling or self.noisy or self._changes_layers):
            raise ValueError(
                f"network kind {self.kind!r} takes no hidden, layer_norm, dueling, noisy or init: build them into it"
            )
        if self.noise_sigma is not None and not self.noisy:
            raise ValueError(f"noise_sigma {self.noise_sigma} has no effect without noisy: true: set it, or leave both")
        if self.recurrent_size is not None and self.recurrent is None:
            raise ValueError(
                f"recurrent_size {self.recurrent_size} has no effect without recurrent: set lstm or gru, or neither"
            )
        full = {**CONV_PRESETS.get(self.kind, {}), **self._given()}
        lengths = {name: len(full[name]) for name in ("filters", "kernels", "strides") if name in full}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"filters, kernels and strides must be equally many, got {lengths}")
        return self

    def resolved(self, spec: EnvSpec, recurrent: bool = False) -> NetworkConfig:
        """With ``auto`` decided and presets written out for the observations of ``spec``.

        Raises: ValueError where no bundled network can take such observations, or where this one shall be recurrent
            and the caller does not say that it makes such networks.
        """
        if not recurrent:
            feed_forward(self)
        shape, dtype = spec.observation_space.shape, spec.observation_space.dtype
        if shape is None or dtype is None or dtype.kind not in "uif" or not shape:
            raise ValueError(
                f"networks take arrays of numbers, but the observation space of {spec.id} is "
                f"{spec.observation_space}: wrap it, for example in gymnasium's FlattenObservation"
            )
        bytes_ = dtype.kind == "u" and dtype.itemsize == 1
        kind = self.kind
        if kind == "auto":
            kind = "mlp" if len(shape) != 3 else "nature" if sorted(shape)[1] >= 64 else "small"
        if (kind == "conv" or kind in CONV_PRESETS) and len(shape) != 3:
            raise ValueError(f"network kind {kind!r} takes pictures [C, H, W], but {spec.id} observes {list(shape)}")
        if self.input_norm == "divide" and not bytes_:
            raise ValueError(f"input_norm 'divide' is for bytes, but {spec.id} observes {dtype}: use per_pixel or none")
        fields: dict[str, Any] = {
            "hidden": None if ":" in kind else (256, 256),
            **CONV_PRESETS.get(kind, {}),
            **self._given(),
            "kind": "conv" if kind in CONV_PRESETS else kind,
            "layer_norm": self.layer_norm,
            "dueling": self.dueling,
            "activation": self.activation,
            "noisy": self.noisy,
            "noise_sigma": self.noise_sigma,
            "init": self.init,
            "recurrent": self.recurrent,
            "recurrent_size": (self.recurrent_size or 64) if self.recurrent else None,
            "input_norm": ("per_pixel" if bytes_ else "none") if self.input_norm == "auto" else self.input_norm,
            "std_floor": self.std_floor or (8.0 if bytes_ else 0.01),
        }
        return NetworkConfig(**fields)

    @property
    def _changes_layers(self) -> bool:
        return self.layer_norm or self.init != "torch"

    def _given(self) -> dict[str, Any]:
        """The sizes that were set."""
        names = ("filters", "kernels", "strides", "hidden")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


def feed_forward(network: NetworkConfig) -> NetworkConfig:
    """The same. Raises: ValueError where it shall be recurrent."""
    if network.recurrent is not None:
        raise ValueError(
            f"network.recurrent: {network.recurrent} is not for this algorithm, which learns from single steps: leave "
            f"it out and show several frames at once (gymnasium's FrameStackObservation), or use ppo, impala or appo"
        )
    return network


FeedForwardConfig = Annotated[NetworkConfig, AfterValidator(feed_forward)]
"""A network's settings where the algorithm cannot use a recurrent one."""
