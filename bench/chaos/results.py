"""What a scenario came to: figures for the page, and problems where something did not hold."""

import sys
import time
from dataclasses import dataclass, field


@dataclass
class Result:
    """``figures`` are rows of a table: what was measured, what it came to, and what it must be."""

    title: str
    what: str
    seconds: float = 0.0
    seeds: list[int] = field(default_factory=list)
    figures: list[tuple[str, str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def figure(self, name, value, wanted="", *, holds=True):
        """Note a figure; where it does not hold it is a problem too."""
        self.figures.append((name, str(value), wanted))
        if not holds:
            self.problems.append(f"{name}: {value}, and it must be {wanted}")

    def __str__(self):
        lines = [f"{self.title} ({self.seconds:.0f} s, seeds {self.seeds})"]
        lines += [
            f"  {name}: {value}" + (f" (must be {wanted})" if wanted else "") for name, value, wanted in self.figures
        ]
        lines += [f"  PROBLEM {problem}" for problem in self.problems[:20]]
        if len(self.problems) > 20:
            lines.append(f"  … and {len(self.problems) - 20} more")
        return "\n".join(lines)


def say(line):
    """Tell on standard error how far it is, with the time."""
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)
