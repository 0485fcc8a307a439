"""The table: a row per measurement, printed and kept as JSON and Markdown."""

import json
import os
import time
from dataclasses import asdict, dataclass, field

LOWER, HIGHER = "lower", "higher"


@dataclass
class Row:
    """One measurement. `goal` is the scoreboard's gate and stretch; `ratio` is ours to the peer's or to the gate."""

    name: str
    ours: str
    better: str
    peer: str = ""
    ratio: str = ""
    goal: str = ""
    note: str = ""
    data: dict = field(default_factory=dict)


class Report:
    COLUMNS = ("what", "ours", "peer or limit", "ratio [95 %]", "goal (ratio unless a unit)", "better", "note")

    def __init__(self, facts):
        self.facts = facts
        self.rows = []

    def add(self, row):
        self.rows.append(row)
        print(f"  → {row.name}: {row.ours}" + (f" | {row.peer} | ratio {row.ratio}" if row.ratio else ""), flush=True)

    def _cells(self):
        return [(r.name, r.ours, r.peer, r.ratio, r.goal, r.better, r.note) for r in self.rows]

    def table(self):
        """All but the notes in columns; a note stands on the line under its row."""
        cells = [self.COLUMNS[:-1]] + [row[:-1] for row in self._cells()]
        widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
        lines = []
        for place, row in enumerate(cells):
            lines.append("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
            note = self.rows[place - 1].note if place else ""
            if note:
                lines.append("    " + note)
        return "\n".join(lines)

    def markdown(self):
        lines = ["# Speed and size", ""]
        lines += [f"- {name}: {value}" for name, value in self.facts.items()]
        lines += ["", "| " + " | ".join(self.COLUMNS) + " |", "|---" * len(self.COLUMNS) + "|"]
        lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in self._cells()]
        return "\n".join(lines) + "\n"

    def write(self, folder):
        os.makedirs(folder, exist_ok=True)
        results = {"facts": self.facts, "rows": [asdict(row) for row in self.rows]}
        with open(os.path.join(folder, "results.json"), "w", encoding="utf-8") as out:
            json.dump(results, out, indent=2)
        with open(os.path.join(folder, "results.md"), "w", encoding="utf-8") as out:
            out.write(self.markdown())


def machine_facts(quick):
    """What a reader must know before comparing figures: they are of this machine, under this load."""
    with open("/proc/loadavg", encoding="ascii") as file:
        load = " ".join(file.read().split()[:3])
    cores = os.cpu_count() or 1
    facts = {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "kind of run": "quick: a check of the script, no figure to compare" if quick else "full",
        "cores": str(cores),
        "load average at start": load,
    }
    if float(load.split()[0]) > 0.5:
        facts["warning"] = "the machine was not idle at start: ratios are noisier, wall times wrong"
    return facts
