"""What every architecture shares: its configuration, and how names in published files become its own."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np

from ..nn import KVCache, Module
from .config import Config


class Model(Module):
    """A module that has a configuration and can be loaded from a checkpoint.

    All randomness, first values and dropout, is ``rng``'s.  ``base_model_prefix`` is the attribute that holds the base
    model in a model with a head: files of either may be loaded into the other.
    """

    config_class: ClassVar[type[Config]]
    base_model_prefix: ClassVar[str] = ""
    rename: ClassVar[Mapping[str, str]] = {}  # pattern of a published name -> ours
    not_parameters: ClassVar[tuple[str, ...]] = ()  # patterns of what published files hold beside parameters
    head_parts: ClassVar[tuple[str, ...]] = ()  # attributes of a head that stands beside its base, without a prefix
    optional_parts: ClassVar[tuple[str, ...]] = ()  # of the base model: None if a file has no weights for it

    def __init__(self, config: Any, *, rng: np.random.Generator, dtype: Any = np.float32):
        self.config, self.rng, self.dtype = config, rng, np.dtype(dtype)

    @property
    def base_model(self) -> "Model":
        return getattr(self, self.base_model_prefix) if self.base_model_prefix in vars(self) else self

    def astype(self, dtype: Any) -> Module:
        """Cast every parameter, as of every module, and what is made in the model's dtype: masks, caches, angles."""
        super().astype(dtype)
        for part in self.modules():
            if isinstance(part, Model):
                part.dtype = np.dtype(dtype)
                if "rotary" in vars(part):
                    vars(part)["rotary"] = part.config.rotary(dtype)
        return self

    def new_cache(self, batch: int, capacity: int | None = None) -> KVCache:
        """Return an empty cache for ``batch`` sequences of up to ``capacity`` tokens, by default as many as fit.

        ValueError where the family has no cache, or no longest sequence and no capacity was given.
        """
        raise ValueError(f"{type(self).__name__}: a cache is for models that generate; this one does not.")

    def names(self, published: Iterable[str]) -> tuple[dict[str, str], list[str]]:
        """Match names in a file to parameters; return ({ours: published}, published names that match none)."""
        own = {name for name, _ in self.named_parameters(remove_duplicate=False)}
        prefix = self.base_model_prefix + "."
        matched: dict[str, str] = {}
        unmatched = []
        for name in published:
            if any(re.fullmatch(pattern, name) for pattern in self.not_parameters):
                continue
            ours = name
            for pattern, new in self.rename.items():
                ours = re.sub(pattern, new, ours)
            candidates = ours, prefix + ours, ours.removeprefix(prefix)
            found = next((candidate for candidate in candidates if candidate in own), None)
            if found is None or found in matched:
                unmatched.append(name)
            else:
                matched[found] = name
        return matched, unmatched
