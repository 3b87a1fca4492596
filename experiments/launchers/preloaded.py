"""The imports of a worker, done once: the fork server loads this module, and its workers share it.

Nothing is computed here and no accelerator is touched: what has begun threads of its own or a device cannot be forked.
"""

from experiments.launchers import local  # noqa: F401
from experiments.setup import import_parts, quiet_libraries

import_parts()
quiet_libraries()
