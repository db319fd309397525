"""What every end-to-end test uses: namespaces, servers, the gateway, clients, faults. See docs/testing.md."""
from .core import Failure, Skip, check, check_equal, test, within  # noqa: F401
