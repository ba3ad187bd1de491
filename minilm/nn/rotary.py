"""Rotary positions: channel pairs of queries and keys are turned by angles that grow with the position.

Of each head's D channels the first R are turned, in pairs i = 0 .. R/2 - 1.  At position p pair i turns by the angle

    p ωᵢ        ωᵢ = θ^(-2i/R)              "default"

so that a query and a key meet with the angle of their distance alone.  To read longer texts than it was trained on, O
positions, a model may have its frequencies, or wavelengths λᵢ = 2π/ωᵢ, scaled by a factor s:

    linear        ωᵢ / s
    dynamic       θ becomes θ (s n/M - s + 1)^(R/(R-2)) for texts of n > M positions, as many as it is made for
    yarn          ωᵢ where O positions are more than β_fast turns, ωᵢ/s where less than β_slow, a ramp between
    longrope      ωᵢ / fᵢ, f a list of factors for texts of up to O positions and another for longer ones
    llama3        ωᵢ where λᵢ < O/high, ωᵢ/s where λᵢ > O/low, a ramp between
    proportional  θ^(-2i/D) / s for the share of pairs that is turned, 0 for the others

yarn and longrope also multiply cos and sin by a number a, ``attention_factor``.
Sources: Su et al. (2021), arXiv:2104.09864; Chen et al. (2023), arXiv:2306.15595; Peng et al. (2023), arXiv:2309.00071;
Ding et al. (2024), arXiv:2402.13753; Grattafiori et al. (2024), arXiv:2407.21783.  The names are those of transformers.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from ..tensor import Tensor, as_tensor
from ..tensor.core import wrap

TABLE = 1 << 17  # rows: a position beyond is computed when it comes, however far out it is
Frequencies = tuple[np.ndarray, float]  # ω (R/2,) in float64, and a


class Rotary:
    """cos and sin of every pair's angle, for a whole model: computed in float64, kept in the model's dtype.

    ``parameters`` is the ``rope_parameters`` of a configuration (see ``rope_parameters`` below) and ``limit`` its
    ``max_position_embeddings``.  Up to there, or ``TABLE``, cos and sin come from a table that grows when it must.
    """

    def __init__(self, head_dim: int, parameters: Mapping[str, Any], limit: int, *, dtype: Any = np.float32):
        """Check the parameters: ValueError for a type or a key that is not here, or a value that makes no sense."""
        self.head_dim, self.parameters, self.limit, self.dtype = head_dim, parameters, limit, np.dtype(dtype)
        omega, self.attention_factor = frequencies(head_dim, parameters, limit)
        self.width = 2 * len(omega)  # R
        # Up to so many positions a text's length changes nothing; beyond, each length may have its own frequencies.
        changes = {"dynamic": limit, "longrope": parameters.get("original_max_position_embeddings") or limit}
        self.short: float = changes.get(parameters["rope_type"], math.inf)
        self._tables: dict[bool, tuple[np.ndarray, np.ndarray]] = {}  # longer than short? -> cos and sin (n, R/2)

    def __call__(self, positions: np.ndarray, lengths: Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
        """Return cos and sin, (B or 1, 1, T, R/2), for positions (B, T), or those of ``lengths`` packed, (1, N).

        A text of more than ``max_position_embeddings`` positions is turned by its angles like any other.  Where the
        frequencies depend on a text's length, each row, or packed sequence, has those of its own last position.
        IndexError for a position below 0.
        """
        p = as_tensor(positions)._data
        if p.ndim != 2 or p.dtype.kind not in "iu":
            raise ValueError(f"position_ids must be integers (B, T), one per token; got {p.dtype} {p.shape}.")
        if p.size and p.min() < 0:
            raise IndexError(f"position_ids must be 0 or more; got {p.min()}.")
        if p.shape[0] > 1 and p.strides[0] == 0:
            p = p[:1]  # all rows alike
        n = int(p.max(initial=-1)) + 1
        if n <= self.short:
            cos, sin = self._turns(p, n)
        elif lengths is None:
            cos, sin = (np.stack(x) for x in zip(*(self._turns(row, int(row.max()) + 1) for row in p), strict=True))
        else:
            parts = np.split(p, np.cumsum(lengths)[:-1], axis=1)
            turned = (self._turns(part, int(part.max()) + 1) for part in parts)
            cos, sin = (np.concatenate(x, axis=1) for x in zip(*turned, strict=True))
        return wrap(cos[:, None]), wrap(sin[:, None])

    def _turns(self, p: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Return cos and sin, (*p.shape, R/2), for positions p of a text of n."""
        most = min(self.limit, TABLE)
        if n > most:
            return self._compute(p, n)
        table = self._tables.get(n > self.short)
        if table is None or len(table[0]) < n:
            size = min(max(n, 256, 0 if table is None else 2 * len(table[0])), most)
            table = self._tables[n > self.short] = self._compute(np.arange(size), n)
        return table[0][p], table[1][p]

    def _compute(self, p: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
        omega, a = frequencies(self.head_dim, self.parameters, self.limit, n)
        angles = p[..., None] * omega
        return (a * np.cos(angles)).astype(self.dtype), (a * np.sin(angles)).astype(self.dtype)


def rope_parameters(
    config: dict[str, Any],
    *,
    theta: float = 10000.0,
    theta_name: str = "rope_theta",
    partial: float | None = None,
    partial_name: str = "partial_rotary_factor",
) -> dict[str, Any]:
    """Take what says how to turn out of a config.json, as transformers 5 or older ones write it; return it as 5 does.

    That is ``rope_parameters``, a dict of rope_type, rope_theta and the numbers of the type.  Older files have
    ``rope_scaling``, a dict with "type" or "rope_type" or None, and beside it ``theta_name`` and ``partial_name``,
    which are ``theta`` and ``partial`` by default.  ValueError where it is no dict.
    """
    new, old = config.pop("rope_parameters", None), config.pop("rope_scaling", None)
    beside = {"rope_theta": config.pop(theta_name, None), "partial_rotary_factor": config.pop(partial_name, None)}
    found = old or new or {}
    if not isinstance(found, Mapping):
        raise ValueError(f"{'rope_scaling' if old else 'rope_parameters'} must be a dict or None; got {found!r}.")
    found = dict(found)
    kinds = found.pop("type", None), found.get("rope_type")
    if None not in kinds and kinds[0] != kinds[1]:
        raise ValueError(f"rope_scaling: type and rope_type must agree; got {kinds[0]!r} and {kinds[1]!r}.")
    found["rope_type"] = kinds[1] or kinds[0] or "default"
    for key, default in {"rope_theta": theta, "partial_rotary_factor": partial}.items():
        value = beside[key] if beside[key] is not None else default
        if found.get(key) is None and value is not None:
            found[key] = value
    return found


def frequencies(head_dim: int, parameters: Mapping[str, Any], limit: int, n: int = 0) -> Frequencies:
    """Return ω (R/2,) in float64 and a, for texts of n positions; the arguments are ``Rotary``'s."""
    given = {key: value for key, value in parameters.items() if value is not None}
    kind = given.pop("rope_type", None)
    if kind not in TYPES:
        raise ValueError(f"rope_type must be one of {', '.join(TYPES)}; got {kind!r}.")
    compute, needs, takes = TYPES[kind]
    given.pop("finetuned", None)  # of a YaRN file: says where the weights come from
    missing = [key for key in ("rope_theta", *needs) if key not in given]
    unknown = [key for key in given if key not in ("rope_theta", "partial_rotary_factor", *needs, *takes)]
    if missing or unknown:
        raise ValueError(
            f"rope_parameters of type {kind!r} must have {', '.join(('rope_theta', *needs))}, and may have "
            f"{', '.join(('partial_rotary_factor', *takes))}; got {', '.join(map(str, parameters))}."
        )
    for key, value in given.items():
        _check(key, value)
    share = given.pop("partial_rotary_factor", 1.0)
    R = head_dim if kind == "proportional" else int(head_dim * share)
    if not 0 < share <= 1 or R < 1:
        raise ValueError(f"partial_rotary_factor must be a share of {head_dim} channels, above 0; got {share}.")
    theta = float(given.pop("rope_theta"))
    if compute is _proportional:
        given["turned"] = int(share * head_dim // 2)
    elif needs or takes:
        given |= {"limit": limit, "n": n}
    return compute(R, theta, **given)


def _default(R: int, theta: float) -> Frequencies:
    return theta ** -(np.arange(0, R, 2) / R), 1.0  # an odd R turns one channel more


def _linear(R: int, theta: float, *, factor: float, limit: int, n: int) -> Frequencies:
    return _default(R, theta)[0] / factor, 1.0


def _dynamic(R: int, theta: float, *, factor: float, limit: int, n: int) -> Frequencies:
    if R <= 2:
        raise ValueError(f"rope_type 'dynamic' must turn more than 2 channels; got {R}.")
    return _default(R, theta * (factor * max(n, limit) / limit - factor + 1) ** (R / (R - 2)))


def _yarn(
    R: int,
    theta: float,
    *,
    limit: int,
    n: int,
    factor: float | None = None,
    original_max_position_embeddings: int | None = None,
    attention_factor: float | None = None,
    beta_fast: float = 32.0,
    beta_slow: float = 1.0,
    mscale: float = 0.0,
    mscale_all_dim: float = 0.0,
    truncate: bool = True,
) -> Frequencies:
    O = original_max_position_embeddings or limit
    s = factor or limit / O

    def temperature(m: float = 1.0) -> float:
        return 0.1 * m * math.log(s) + 1 if s > 1 else 1.0

    def pair_that_turns(times: float) -> float:  # λᵢ = O / times, solved for i
        return R * math.log(O / (2 * math.pi * times)) / (2 * math.log(theta))

    a = attention_factor
    if a is None:
        a = temperature(mscale) / temperature(mscale_all_dim) if mscale and mscale_all_dim else temperature()
    low, high = pair_that_turns(beta_fast or 32.0), pair_that_turns(beta_slow or 1.0)
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, R - 1)
    omega = _default(R, theta)[0]
    ramp = np.clip((np.arange(len(omega)) - low) / (high - low or 0.001), 0, 1)  # 0: as it was; 1: slowed down
    return omega * (1 - ramp) + omega / s * ramp, a


def _longrope(
    R: int,
    theta: float,
    *,
    short_factor: list[float],
    long_factor: list[float],
    limit: int,
    n: int,
    factor: float | None = None,
    original_max_position_embeddings: int | None = None,
    attention_factor: float | None = None,
) -> Frequencies:
    O = original_max_position_embeddings or limit
    s = factor or limit / O
    omega = _default(R, theta)[0]
    for key, f in {"short_factor": short_factor, "long_factor": long_factor}.items():
        if len(f) != len(omega):
            raise ValueError(f"{key} must hold one number for each of {len(omega)} pairs; got {len(f)}.")
    a = attention_factor
    if a is None:
        a = math.sqrt(1 + math.log(s) / math.log(O)) if s > 1 else 1.0
    return omega / np.array(long_factor if n > O else short_factor, np.float64), a


def _llama3(
    R: int,
    theta: float,
    *,
    factor: float,
    low_freq_factor: float,
    high_freq_factor: float,
    limit: int,
    n: int,
    original_max_position_embeddings: int | None = None,
) -> Frequencies:
    if high_freq_factor <= low_freq_factor:
        raise ValueError(f"high_freq_factor must be above low_freq_factor; got {high_freq_factor}, {low_freq_factor}.")
    O = original_max_position_embeddings or limit
    omega = _default(R, theta)[0]
    turns = O * omega / (2 * math.pi)  # O / λ
    ramp = np.clip((turns - low_freq_factor) / (high_freq_factor - low_freq_factor), 0, 1)  # 1: as it was
    return omega * ramp + omega / factor * (1 - ramp), 1.0


def _proportional(R: int, theta: float, *, turned: int, factor: float = 1.0) -> Frequencies:
    omega = _default(R, theta)[0][: R // 2] / factor
    return np.where(np.arange(len(omega)) < turned, omega, 0.0), 1.0


_ORIGINAL = "original_max_position_embeddings"
# rope_type -> (function, the keys it must have, those it may have)
TYPES: dict[str, tuple[Callable[..., Frequencies], Collection[str], Collection[str]]] = {
    "default": (_default, (), ()),
    "linear": (_linear, ("factor",), ()),
    "dynamic": (_dynamic, ("factor",), ()),
    "yarn": (
        _yarn,
        (),
        ("factor", _ORIGINAL, "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"),
    ),
    "longrope": (_longrope, ("short_factor", "long_factor"), ("factor", _ORIGINAL, "attention_factor")),
    "llama3": (_llama3, ("factor", "low_freq_factor", "high_freq_factor"), (_ORIGINAL,)),
    "proportional": (_proportional, (), ("factor",)),
}


def _check(key: str, value: Any) -> None:
    """Refuse what no formula above can take."""

    def number(x: Any, above: float) -> bool:
        return isinstance(x, (int, float)) and not isinstance(x, bool) and above < x < math.inf

    if key == "truncate":
        must, fine = "True or False", isinstance(value, bool)
    elif key in ("short_factor", "long_factor"):
        must, fine = "a list of numbers above 0", isinstance(value, list) and all(number(x, 0) for x in value)
    elif key == _ORIGINAL:
        must, fine = "a whole number above 1", isinstance(value, int) and number(value, 1)
    elif key == "rope_theta":
        must, fine = "a number above 1", number(value, 1)
    elif key in ("beta_fast", "beta_slow", "mscale", "mscale_all_dim", "attention_factor"):
        must, fine = "a number, 0 or more", value == 0 or number(value, 0)
    else:
        must, fine = "a number above 0", number(value, 0)
    if not fine:
        raise ValueError(f"rope_parameters: {key} must be {must}; got {value!r}.")
