"""P14, as far as an emulated computer can tell: QEMU translates every instruction (TCG), so no ratio is given."""

import subprocess
import time
from pathlib import Path

import box
from report import LOWER, Row

LAN = "247"
DEADLINE_S = 240


class _Alive:
    """The box is another computer: nothing to look at but its answers."""

    @staticmethod
    def poll():
        return None


def measure(setup, report):
    name = "P14 image: power on to first 200 on /readyz"
    if not (Path(setup.target_dir) / "image" / "disk.img").exists():
        report.add(Row(name, "not built", LOWER, note="scripts/image builds it"))
        return
    vm = str(Path(setup.repo_dir) / "scripts" / "vm")
    data = Path(setup.run_dir) / "vm"
    for file in ("disk.img", "disk.stamp", "console.log"):
        (data / file).unlink(missing_ok=True)
    subprocess.run([vm, "up", LAN], check=True, stdout=subprocess.DEVNULL)
    try:
        seconds = [_boot(vm, data) for _ in range(2)]
    finally:
        subprocess.run([vm, "down", LAN], check=True, stdout=subprocess.DEVNULL)
    report.add(
        Row(
            name,
            f"{seconds[1]:.1f} s, first boot {seconds[0]:.1f} s",
            LOWER,
            note="emulated (QEMU, TCG): good for comparing with yesterday on this machine, meaningless as a time or ratio",
            data={"first_s": seconds[0], "second_s": seconds[1]},
        )
    )


def _boot(vm, data):
    started = time.monotonic()
    subprocess.run([vm, "start", LAN, "--data", str(data)], check=True, stdout=subprocess.DEVNULL)
    try:
        return box.first_answer(f"10.57.{LAN}.2", 80, "/readyz", started, _Alive, DEADLINE_S)
    finally:
        subprocess.run([vm, "cut", LAN], check=True, stdout=subprocess.DEVNULL)
