"""The published folders, made once."""

import pytest

from .published import write_all


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    """The folder that holds one folder of each kind; see ``published.write_all``."""
    root = tmp_path_factory.mktemp("published")
    write_all(root)
    return root
