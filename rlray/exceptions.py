"""The exceptions of rlray under the name that Ray gives them: ``rlray.exceptions.RayTaskError`` and so on."""

from rlray.core.exceptions import *  # noqa: F403
from rlray.core.exceptions import __all__ as __all__
