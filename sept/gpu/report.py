"""The results of the checks, as terminal output, JSON and Markdown."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

JSON, MARKDOWN = "gpu.json", "gpu.md"


class Skip(Exception):
    """Raised by a check that this machine cannot run; its text says what is missing."""


@dataclass(frozen=True)
class Result:
    """passed: None if the check was not run; text says why. value: the measurement; expected: the pass criterion, empty
    for a figure that cannot fail. unit: of a number. section: filled in by the runner."""

    name: str
    passed: bool | None
    value: Any = None
    expected: str = ""
    text: str = ""
    unit: str = ""
    section: str = ""

    @property
    def status(self) -> str:
        if self.passed is None:
            return "skipped"
        if not self.passed:
            return "FAILED"
        return "ok" if self.expected else "-"

    def cells(self) -> list[str]:
        return [self.status, self.name, f"{format_value(self.value)} {self.unit}".strip(), self.expected, self.text]


@dataclass(frozen=True)
class Report:
    """title: one line describing the machine. facts: of the run as a whole."""

    title: str
    facts: dict[str, Any]
    results: Sequence[Result]

    @property
    def failed(self) -> int:
        return sum(result.passed is False for result in self.results)

    def failures(self) -> list[str]:
        """A line per failed check."""
        return [
            f"FAILED {each.section}: {each.name}: {'; '.join(cell for cell in each.cells()[2:] if cell)}"
            for each in self.results
            if each.passed is False
        ]

    def summary(self) -> str:
        counts = {status: sum(each.status == status for each in self.results) for status in ("ok", "FAILED", "skipped")}
        figures = len(self.results) - sum(counts.values())
        return (
            f"{counts['ok']} checks passed, {counts['FAILED']} failed, {counts['skipped']} skipped; {figures} figures; "
            f"{self.facts['wall_s']:.0f} s, {self.facts['cpu_s']:.0f} CPU seconds"
        )

    def write(self, folder: Path) -> tuple[Path, Path]:
        """The JSON and the Markdown file, in `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = folder / JSON, folder / MARKDOWN
        whole = {"title": self.title, **self.facts, "failed": self.failed}
        whole["results"] = [{**asdict(each), "status": each.status} for each in self.results]
        paths[0].write_text(json.dumps(whole, indent=1, default=str) + "\n")
        paths[1].write_text(self.markdown())
        return paths

    def markdown(self) -> str:
        lines = ["# sept on this machine", "", self.title, "", f"`{self.facts['command']}`: {self.summary()}."]
        lines += ["", *(f"- {line}" for line in self.failures())] if self.failed else []
        for section in dict.fromkeys(each.section for each in self.results):
            rows = [each.cells() for each in self.results if each.section == section]
            lines += ["", f"## {section}", "", "| | | found | passes | |", "|---|---|---|---|---|"]
            lines += [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows]
        return "\n".join(lines) + "\n"


def format_value(value: Any) -> str:
    """A value as people read it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)


def table(results: Sequence[Result]) -> list[str]:
    """Terminal lines: measurements next to their pass criteria."""
    rows = [result.cells() for result in results]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = []
    for status, name, value, expected, text in rows:
        line = f"  {status:<{max(widths[0], 7)}}  {name:<{widths[1]}}  {value:<{widths[2]}}"
        beside = "; ".join(part for part in (expected and f"passes: {expected}", text) if part)
        lines.append(f"{line}  {beside}".rstrip())
    return lines
