"""P16: what the box weighs. Reads what scripts/cross and scripts/image left; builds nothing."""

from pathlib import Path

from report import LOWER, Row

MIB = 1 << 20
GATES = {"binary": (10, 6), "root": (32, 20), "bundle": (32, 20)}


def _images(setup):
    """Sizes that scripts/image wrote, by the first word of their line."""
    file = Path(setup.target_dir) / "image" / "sizes.txt"
    sizes = {}
    if file.exists():
        for line in file.read_text(encoding="utf-8").splitlines():
            words = line.split()
            if words and words[-1].isdigit():
                name = "root" if line.startswith("root (with verity)") else words[0]
                sizes[name] = max(int(words[-1]), sizes.get(name, 0)) if name == "root" else int(words[-1])
    return sizes


def measure(setup, report):
    sizes = _images(setup)
    binary = Path(setup.target_dir) / "aarch64-unknown-linux-gnu" / "release" / "comptoir"
    if binary.exists():
        sizes["binary"] = binary.stat().st_size
    names = {"binary": "ARM binary, static", "root": "root image, with verity", "bundle": "update bundle"}
    for name, label in names.items():
        gate, stretch = GATES[name]
        goal = f"<= {gate} MiB, {stretch} MiB"
        if name not in sizes:
            built_by = "scripts/cross" if name == "binary" else "scripts/image"
            report.add(Row(f"P16 {label}", "not built", LOWER, goal=goal, note=f"{built_by} builds it"))
            continue
        mib = sizes[name] / MIB
        report.add(
            Row(
                f"P16 {label}",
                f"{mib:.2f} MiB",
                LOWER,
                peer=f"{gate} MiB (gate)",
                ratio=f"{mib / gate:.2f}",
                goal=goal,
                data={"bytes": sizes[name]},
            )
        )
    native = Path(setup.binary).stat().st_size
    report.add(Row("binary for this machine", f"{native / MIB:.2f} MiB", LOWER, data={"bytes": native}))
