"""The state of an optimizer as a flat dict of arrays and numbers, and back.

optimizer.<class>    1, the version of this layout
options.<i>.<name>   an option of group i; of a pair, options.<i>.<name>.0 and .1
group.<parameter>    i, the group that the parameter is in
<slot>.<parameter>   what the rule remembers of it; absent before its first step
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from .checks import plain
from .flat import zeros_like

LAYOUT = 1
Groups = list[dict[str, Any]]
State = dict[str, dict[str, Any]]


def save(
    who: str, slots: dict[str, type], groups: Groups, options: list[dict[str, Any]], state: State, copy: bool
) -> dict[str, np.ndarray | int | float]:
    flat: dict[str, Any] = {f"optimizer.{who}": LAYOUT}
    for i, group in enumerate(groups):
        flat |= _flat(i, options[i])
        flat |= {f"group.{name}": i for name in group["param_names"]}
    for name, kept in state.items():
        for slot, value in kept.items():
            flat[f"{slot}.{name}"] = value.copy() if copy and slots[slot] is np.ndarray else value
    return flat


def load(
    who: str, slots: dict[str, type], groups: Groups, defaults: dict[str, Any], saved: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], State]:
    """Return the options of each group and the state, made of copies; change nothing."""
    left = dict(saved)
    _check_class(who, left)
    _check_groups(who, groups, left)
    _check_same(
        f"{who}: the options must be those of {len(groups)} groups",
        [key for i in range(len(groups)) for key in _flat(i, defaults)],
        [key for key in left if key.startswith("options.")],
    )
    options = [_options(i, defaults, left) for i in range(len(groups))]
    state: State = {}
    for group in groups:
        for name, p in zip(group["param_names"], group["params"], strict=True):
            kept = {slot: left.pop(f"{slot}.{name}") for slot in slots if f"{slot}.{name}" in left}
            if not kept:
                continue
            if missing := slots.keys() - kept.keys():
                raise ValueError(
                    f"{who}: the state of {name} must hold {', '.join(slots)}, got no {min(missing)}. {_TRY}"
                )
            for slot, value in kept.items():
                if slots[slot] is np.ndarray:
                    _check_array(who, slot, name, p, value)
                else:
                    kept[slot] = _count(who, slot, name, value)
            state[name] = kept
    _check_same(f"{who}: what is saved must belong to a parameter", [], left)
    _own(slots, groups, state)
    return options, state


def _own(slots: dict[str, type], groups: Groups, state: State) -> None:
    """Replace the arrays of ``state`` by copies, which lie in one buffer for each group, slot and dtype."""
    for group in groups:
        named = zip(group["param_names"], group["params"], strict=True)
        kept = [(state[name], p._data) for name, p in named if name in state]
        for slot in (slot for slot, kind in slots.items() if kind is np.ndarray):
            for (mine, _), part in zip(kept, zeros_like([p for _, p in kept]), strict=True):
                part[...] = mine[slot]
                mine[slot] = part


def _flat(i: int, options: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in options.items():
        if isinstance(value, tuple):
            flat |= {f"options.{i}.{name}.{k}": part for k, part in enumerate(value)}
        else:
            flat[f"options.{i}.{name}"] = value
    return flat


def _options(i: int, like: dict[str, Any], left: dict[str, Any]) -> dict[str, Any]:
    """Take the options of group ``i``, named and paired as in ``like``, out of ``left``."""
    options: dict[str, Any] = {}
    for name, value in like.items():
        key = f"options.{i}.{name}"
        if isinstance(value, tuple):
            options[name] = tuple(left.pop(f"{key}.{k}") for k in range(len(value)))
        else:
            options[name] = left.pop(key)
    return options


def _check_class(who: str, left: dict[str, Any]) -> None:
    found = {key: left.pop(key) for key in list(left) if key.startswith("optimizer.")}
    if found.keys() != {f"optimizer.{who}"}:
        got = ", ".join(key.removeprefix("optimizer.") for key in found) or "something else"
        raise ValueError(f"{who}: the state must have been saved by {who}, got that of {got}. Build that optimizer.")
    if (layout := found[f"optimizer.{who}"]) != LAYOUT:
        raise ValueError(f"{who}: the state must be of layout {LAYOUT}, got {layout!r}. Use the version that saved it.")


def _check_groups(who: str, groups: Groups, left: dict[str, Any]) -> None:
    expected = {name: i for i, group in enumerate(groups) for name in group["param_names"]}
    found = {key.removeprefix("group."): left.pop(key) for key in list(left) if key.startswith("group.")}
    _check_same(f"{who}: the parameters must be those of this optimizer", expected, found)
    for name, i in expected.items():
        if found[name] != i:
            raise ValueError(f"{who}: {name} must be in group {found[name]!r} as it was saved, got group {i}. {_TRY}")


def _check_same(law: str, expected: Iterable[str], found: Iterable[str]) -> None:
    expected, found = set(expected), set(found)
    if expected != found:
        differences = {"no": sorted(expected - found), "also": sorted(found - expected)}
        got = " and ".join(f"{word} {_some(names)}" for word, names in differences.items() if names)
        raise ValueError(f"{law}; in what was saved there is {got}. {_TRY}")


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _check_array(who: str, slot: str, name: str, p: Any, value: Any) -> None:
    if not isinstance(value, np.ndarray) or value.shape != p.shape or value.dtype != p.dtype:
        got = f"{value.dtype} of shape {value.shape}" if isinstance(value, np.ndarray) else repr(value)
        raise ValueError(f"{who}: {slot} of {name} must be {p.dtype} of shape {p.shape}, got {got}. {_TRY}")


def _count(who: str, slot: str, name: str, value: Any) -> int:
    number = plain(value)
    if type(number) not in (int, float) or number < 1 or not float(number).is_integer():
        raise ValueError(f"{who}: {slot} of {name} must be a whole number from 1 on, got {value!r}.")
    return int(number)


_TRY = "Build the optimizer for the same model, with the same names and groups, as when it was saved."
