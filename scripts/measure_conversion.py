"""Sizes and memory of conversions, on a full-size layout with random weights.

    $ python scripts/measure_conversion.py stella-400m measured
    stella-400m    as published       1.741 GB on disk
    stella-400m    float16            0.868 GB on disk   0.872 GB held   ... GB peak
    ...

``on disk`` is the backbone's files; ``held`` what MLX holds of the loaded model with its default
head, quantized matrices packed as on a GPU; ``peak`` the resident memory of the whole conversion,
the comparison with the source included, by wait4 (what /usr/bin/time -v prints). The folder needs
room for the layout and one conversion at a time.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

SCRIPTS = Path(__file__).parent
CONVERSIONS = {
    "float16": ["--dtype", "float16"],
    "8 bits": ["--bits", "8"],
    "4 bits": ["--bits", "4"],
}
TEXTS = ["Green tea is made from leaves.", "A walk in the woods.", "It rains.", "Deep learning"]

# In a process of its own, since MLX must not have expanded anything before.
HELD = """
import sys
import mlx_stella
import mlx.core as mx
from mlx_stella.checkpoint import checkpoint
from mlx_stella import loading
checkpoint.stays_packed = loading.stays_packed = lambda: True
model = mlx_stella.load(sys.argv[1], dtype="float16")
print(mx.get_active_memory())
"""


def weights_bytes(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.glob("*.safetensors"))


def measure(
    model: Annotated[str, typer.Argument(help="A name that random_checkpoint.py knows.")],
    folder: Annotated[Path, typer.Argument(help="Where to write; made if it is not there.")],
) -> None:
    folder.mkdir(exist_ok=True)
    texts, source = folder / "texts.txt", folder / model
    texts.write_text("\n".join(TEXTS) + "\n")
    if not source.exists():
        command = [sys.executable, SCRIPTS / "random_checkpoint.py", model, source]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    say(model, "as published", weights_bytes(source))
    for name, options in CONVERSIONS.items():
        target = folder / f"{model}-{name.replace(' ', '')}"
        command = [sys.executable, SCRIPTS / "convert.py", source, "--output", target, *options]
        process = subprocess.Popen(
            [*command, "--eval-texts", texts, "--overwrite"], stdout=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            sys.exit(f"converting failed: {os.waitstatus_to_exitcode(status)}")
        held = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", HELD, target], capture_output=True, check=True
        )
        unit = 1 if sys.platform == "darwin" else 1024
        say(model, name, weights_bytes(target), int(held.stdout), usage.ru_maxrss * unit)
        shutil.rmtree(target)


def say(model: str, name: str, disk: int, held: int | None = None, peak: int | None = None) -> None:
    line = f"{model:14} {name:14} {disk / 1e9:9.3f} GB on disk"
    if held is not None:
        line += f" {held / 1e9:8.3f} GB held {peak / 1e9:8.3f} GB peak"
    print(line, flush=True)


if __name__ == "__main__":
    typer.run(measure)
