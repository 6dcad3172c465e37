"""The most memory this process held at once since a moment: what the system counts, not an estimate."""

import re
from pathlib import Path

_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


class Peak:
    """Begins counting anew where the system lets it; elsewhere nothing is known."""

    def __init__(self) -> None:
        try:
            _CLEAR.write_text("5")  # Linux: the highest resident set from now on
            self._counts = True
        except OSError:
            self._counts = False

    def read(self) -> int | None:
        """Bytes; None where the system does not tell."""
        if not self._counts:
            return None
        try:
            found = re.search(r"^VmHWM:\s+(\d+) kB", _STATUS.read_text("ascii"), re.MULTILINE)
        except OSError:
            return None
        return int(found[1]) * 1024 if found else None
