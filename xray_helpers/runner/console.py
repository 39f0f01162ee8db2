"""What a step prints, line by line, shown with its name."""

import logging
import re
import sys
import time

from xray_helpers.study.machine import is_noise

log = logging.getLogger("xray_helpers")
_COUNTED = re.compile(r"(.*?): *(\d+)%")  # tqdm's description and percentage


class ConsoleLines:
    """Where a notebook's printed lines go: whole lines to the log, progress lines to the console alone.

    A line that overwrites itself (carriage return) is shown live on a terminal; the log keeps it at each
    quarter of what it counts, if that takes long, so that an unattended run can be followed too.
    """

    def __init__(self, step: str, every: float = 10.0) -> None:
        self.step, self.every, self.pending, self.logged, self.live = step, every, "", time.monotonic(), False
        self.quarters: dict[str, int] = {}

    def write(self, text: str) -> None:
        """Show the complete lines of a text; the rest waits for its end."""
        self.pending += text
        *whole, self.pending = self.pending.split("\n")
        for line in whole:
            last = line.rstrip("\r").split("\r")[-1].strip()
            if last and not is_noise(last):
                self._end_live()
                log.info("  %s: %s", self.step, last)
        progress = [part.strip() for part in self.pending.split("\r") if part.strip()]
        self.pending = self.pending[self.pending.rfind("\r") + 1 :] if progress else self.pending
        if progress:
            self._show(progress[-1])

    def _show(self, line: str) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\x1b[2K  {self.step}: {line}"[:160])
            sys.stderr.flush()
            self.live = True
        counted = _COUNTED.match(line)
        if counted is not None:
            what, quarter = counted[1], int(counted[2]) // 25
            before = self.quarters.setdefault(what, 0)
            self.quarters[what] = min(before, quarter)
            if quarter <= before:
                return
        if time.monotonic() - self.logged > self.every:
            self.logged = time.monotonic()
            if counted is not None:
                self.quarters[what] = quarter
            log.info("  %s: %s", self.step, line, extra={"progress": True})

    def _end_live(self) -> None:
        if self.live:
            sys.stderr.write("\r\x1b[2K")
            self.live = False

    def close(self) -> None:
        """Pass on a last line that did not end, such as an aborting library's."""
        self._end_live()
        if "\r" not in self.pending and self.pending.strip():
            self.write("\n")
