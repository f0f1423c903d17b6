"""Routing needs no Ray: neither installed nor started."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

PROGRAM = """
import sys
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType

package = ModuleType("atriva_ray")  # its own __init__ is the face of the cluster, and imports ray
package.__path__ = sys.argv[1:]
sys.modules |= {"atriva_ray": package, "ray": None}  # None: importing it fails

routing = import_module("atriva_ray.routing")
for module in iter_modules(routing.__path__):
    import_module(f"atriva_ray.routing.{module.name}")
    print(module.name)
"""


def test_routing_imports_without_ray():
    places = find_spec("atriva_ray").submodule_search_locations
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *places], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert {"balance", "core", "placement"} <= set(done.stdout.split())
