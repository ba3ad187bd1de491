"""Code that needs a process of its own: threads, forks, settings that cannot be taken back."""

import os
import subprocess
import sys


def python(code, **env):
    """Run the code in a process of its own, for two minutes at most; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore:.*fork:DeprecationWarning", "-c", code],
        env=os.environ | {"OMP_NUM_THREADS": "2"} | env,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout.strip()
