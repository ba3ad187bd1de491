"""Models on the hub: which files of a repository a model needs, fetched once and kept in the hub library's cache.

The endpoint (``HF_ENDPOINT``), the cache (``HF_HOME``), offline mode (``HF_HUB_OFFLINE``) and tokens are the library's.
"""

import re
from fnmatch import fnmatch
from pathlib import Path

from ..checkpoint import CheckpointError

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
SMALL = ("*.json", "*.txt", "*.jinja")  # configurations, vocabularies, templates, poolings; not *.index.json
WEIGHTS = (  # the first of these that the repository has
    ("model.safetensors",),
    ("model.safetensors.index.json", "model-*-of-*.safetensors"),
    ("pytorch_model.bin",),
    ("pytorch_model.bin.index.json", "pytorch_model-*-of-*.bin"),
)


def is_id(name: str) -> bool:
    """Whether this could be a repository, ORGANISATION/NAME or NAME, or a file in one, ORGANISATION/NAME/FILE.gguf."""
    parts = name.split("/")
    if len(parts) > 2 and name.endswith(".gguf"):
        return REPOSITORY.fullmatch("/".join(parts[:2])) is not None and ".." not in parts
    return REPOSITORY.fullmatch(name) is not None


def fetch(name: str, revision: str | None = None) -> Path:
    """Return the local folder of a repository's files that a model needs, or one GGUF file of it.

    CheckpointError: no such repository, revision or file, no access, no connection; the message says which.
    """
    from huggingface_hub import hf_hub_download, snapshot_download

    parts = name.split("/")
    try:
        if len(parts) > 2:
            return Path(hf_hub_download("/".join(parts[:2]), "/".join(parts[2:]), revision=revision))
        files = _listed(name, revision)
        if files is None:
            return _cached(name, revision)
        return Path(snapshot_download(name, revision=revision, allow_patterns=_wanted(files)))
    except Exception as error:  # without a connection the library raises what its HTTP client of the day raises
        raise CheckpointError(
            f"{name!r} must be a folder, a file, or a model on the hub; got: {_said(error)}; check the name and the "
            "connection, or give a folder"
        ) from None


def _listed(name: str, revision: str | None) -> list[str] | None:
    """Return the names of a repository's files; None where the hub cannot be asked, so that the cache must do."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        # Not list_repo_files, which goes on asking for half a minute where there is no connection.
        siblings = HfApi().model_info(name, revision=revision, timeout=10).siblings
        return [file.rfilename for file in siblings or []]
    except (HfHubHTTPError, HFValidationError):  # the hub answered: no such model, or no access
        raise
    except Exception:
        return None


def _cached(name: str, revision: str | None) -> Path:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "config.json", revision=revision)
    if not isinstance(found, str):
        raise ValueError("no connection, and it is not in the cache")
    return Path(found).parent


def _wanted(files: list[str]) -> list[str]:
    """Choose the files that a model needs: one form of its weights, and all that is small."""
    weights = next((patterns for patterns in WEIGHTS if patterns[0] in files), None)
    if weights is None:
        found = [file for file in files if file.endswith((".gguf", ".onnx", ".h5", ".msgpack", ".bin", ".safetensors"))]
        hint = "; choose a GGUF file as ORGANISATION/NAME/FILE" if any(f.endswith(".gguf") for f in found) else ""
        raise ValueError(f"no model.safetensors and no pytorch_model.bin in it, but {found or 'no weights'}{hint}")
    small = [file for file in files if _matches(file, SMALL) and not file.endswith(".index.json")]
    return small + [file for file in files if _matches(file, weights)]


def _matches(file: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(file, pattern) for pattern in patterns)


def _said(error: Exception) -> str:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    for kind, words in (
        (GatedRepoError, "one that asks for an agreement: accept it on its page, then log in with: hf auth login"),
        (RevisionNotFoundError, "no such revision of it"),
        (RepositoryNotFoundError, "no model of that name, or one that asks for a login"),
    ):
        if isinstance(error, kind):
            return words
    return str(error).strip().split("\n")[0] or type(error).__name__
