"""Which tensors of a checkpoint are the network: below which keys of the file, and under which prefix of their names.

Training scripts save weights in many wrappings: ``{"model": ..., "optimizer": ...}``, ``module.`` of DataParallel,
``_orig_mod.`` of `torch.compile`, the attribute of a Lightning module. Averaged weights go before those of the last
step, as in the code of those who write them, if they are of the very same tensors.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from fasterrcnn.errors import WeightsError
from fasterrcnn.weights.layout import State
from fasterrcnn.weights.safe_pickle import NumpyArray, Skipped

_KEYS = (
    *("model", "state_dict", "model_state_dict", "model_state", "net", "network", "weights", "params", "module"),
    *("detector", "model_weights", "blobs", "state"),
)
"""Keys below which weights lie, Caffe2's arrays included; the first is taken. Others count where there is one only."""

_AVERAGED = re.compile(r"(?:^|[._])(?:ema|swa|teacher|averaged?|avg|shadow)(?:[._]|$)|(?<=[a-z])(?:EMA|Teacher)")
_NO_WEIGHTS = re.compile(r"optim|sched|scaler|callback|loop|^lr", re.IGNORECASE)
_INSIDE = re.compile(r"\b(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\.")
_PREFIX = re.compile(r"(?:module|model|net|network|detector|ema|ema_model)\.")
_DETECTOR = re.compile(r"(?P<prefix>(?:.+\.)?)(?:rpn\.head\.|proposal_generator\.rpn_head\.|rpn_head\.rpn_)")
_COUNTERS = ("n_averaged", "num_batches_tracked")
_MAX_DEPTH = 4


@dataclass(frozen=True)
class NamedTensors:
    """The tensors of a network as a file holds them."""

    tensors: State
    beside: dict[str, Any] = field(default_factory=dict)  # plain values of the file: epoch, meta, a header's texts
    about: str = ""  # which of several they are, in a few words


def find_named_tensors(content: Any) -> tuple[str, dict[Any, Any]]:
    """The dict of a checkpoint that holds the weights, and the keys that lead there, with dots between them.

    A `WeightsError` states what the file holds instead: a whole pickled model, or several networks.
    """
    places = dict(_dicts_with_tensors(content, (), set()))
    if not places:
        whole = _first_object(content)
        if whole is None:
            raise WeightsError("no named tensors inside")
        raise WeightsError(
            f"refused, it holds a whole object of {whole}, and loading that could run code; load it with the program "
            "that wrote it, and save model.state_dict() alone"
        )
    counts = {place: sum(map(_is_tensor, tensors.values())) for place, tensors in places.items()}
    large = {
        place: places[place]
        for place in places
        if place.split(".")[0] in _KEYS or 2 * counts[place] >= max(counts.values())
    }
    # MMEngine exchanges the two before it writes: its "state_dict" has the averaged ones.
    swapped = isinstance(content.get("meta"), dict) and "message_hub" in content
    place = _choose({p: tensors for p, tensors in large.items() if not (swapped and _AVERAGED.search(p))})
    return place, places[place]


def unwrap_names(weights: NamedTensors) -> NamedTensors:
    """The tensors of one network, under the names that they have in it.

    Prefixes of wrappers go. Where a detector lies under a prefix, as in a Lightning module, what is beside it is left
    out; of several detectors, averaged weights are taken.
    """
    state = {_INSIDE.sub("", name): tensor for name, tensor in weights.tensors.items()}
    abouts = [weights.about] if weights.about else []
    prefixes = {match["prefix"] for name in state if (match := _DETECTOR.match(name))}
    if len(prefixes) > 1 or (prefixes and "" not in prefixes):
        networks = {prefix.rstrip("."): _below(state, prefix, prefixes) for prefix in sorted(prefixes)}
        chosen = _choose(networks)
        others = len(state) - len(networks[chosen])
        abouts += [f"averaged weights ({chosen})"] if len(networks) > 1 and _AVERAGED.search(chosen) else []
        abouts += [f"without {others} tensors beside {chosen or 'it'}"] if others else []
        return NamedTensors(networks[chosen], weights.beside, ", ".join(abouts))
    names = [name for name in state if name not in _COUNTERS]
    while names and (match := _PREFIX.match(names[0])) and all(name.startswith(match[0]) for name in names):
        state = {name.removeprefix(match[0]): state[name] for name in names}
        names = list(state)
    return NamedTensors(state, weights.beside, ", ".join(abouts))


def about_place(place: str) -> str:
    """A few words about weights that lie there; nothing where they are the only ones to expect."""
    return f"averaged weights ({place})" if _AVERAGED.search(place) else ""


def _dicts_with_tensors(content: Any, keys: tuple[str, ...], seen: set[int]) -> Iterator[tuple[str, dict[Any, Any]]]:
    """Every dict in a checkpoint that holds tensors, but those of optimizers, each of them once."""
    if not isinstance(content, dict) or id(content) in seen or len(keys) > _MAX_DEPTH:
        return
    seen.add(id(content))
    if any(map(_is_tensor, content.values())):
        yield ".".join(keys), content
    for key, value in content.items():
        if isinstance(key, str) and (keys or not _NO_WEIGHTS.search(key)):
            yield from _dicts_with_tensors(value, (*keys, key), seen)


def _choose(networks: Mapping[str, Mapping[Any, Any]]) -> str:
    """The place of the network that counts: averaged weights where the others have the same names, else the others."""
    averaged = [place for place in networks if _AVERAGED.search(place)]
    plain = [place for place in networks if place not in averaged]
    if not plain:
        return averaged[0]
    ranks = {place: [_rank(key) for key in place.split(".")] for place in plain}
    first = [place for place in plain if ranks[place] == min(ranks.values())]
    same = [place for place in averaged if _names(networks[place]) == _names(networks[first[0]])]
    if same:
        return same[0]
    if len(first) > 1:
        raise WeightsError(f"holds several networks ({', '.join(first)[:200]}); save one of them alone")
    return first[0]


def _rank(key: str) -> int:
    return _KEYS.index(key) if key in _KEYS else len(_KEYS)


def _names(tensors: Mapping[Any, Any]) -> set[str]:
    """Names of the tensors of a network, without wrappers and counters."""
    state = {key: value for key, value in tensors.items() if isinstance(key, str) and _is_tensor(value)}
    return {name for name in unwrap_names(NamedTensors(state)).tensors if name.rpartition(".")[2] not in _COUNTERS}


def _below(state: State, prefix: str, prefixes: set[str]) -> State:
    """The tensors under a prefix, without it and without those under a longer one."""
    longer = tuple(other for other in prefixes if other.startswith(prefix) and other != prefix)
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in state.items()
        if name.startswith(prefix) and not name.startswith(longer)
    }


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor | NumpyArray)


def _first_object(content: Any) -> str | None:
    """The full name of an object where the weights should be."""
    if isinstance(content, Skipped):
        return content.name
    values = content.values() if isinstance(content, dict) else ()
    return next((value.name for value in values if isinstance(value, Skipped)), None)
