"""Corrupting photographs of 224 px on one core: ours beside imagecorruptions and imagecorruptions-imaug.

python -m benchmarks.corruptions [--peers [FOLDER …]] [--images FOLDER] [--rounds 5] > table.md
"""

from __future__ import annotations

import argparse
import itertools
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.timing import print_table, time_interleaved
from pixmim_eval.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from pixmim_eval.data.transforms import apply_evaluation
from pixmim_eval.progress import progress
from pixmim_eval.types import Preprocessing
from tests.references.peers import Peer, is_installed, load_peer

SIZE, BATCH = 224, 16
ONE, MANY = "ours, one by one", f"ours, batches of {BATCH}"
Milliseconds = dict[str, dict[str, list[float]]]  # corruption -> who -> one number a severity


def make_photographs() -> np.ndarray:
    """Images uint8 [16, 224, 224, 3] with the statistics of photographs: noise of spectrum 1/f, and things with edges.

    The channels share most of the noise, as those of photographs do, and each image has its own light and contrast.
    """
    random = np.random.default_rng(0)
    across = np.fft.fftfreq(SIZE)
    frequency = np.hypot(across[:, None], across)
    frequency[0, 0] = np.inf
    white = random.normal(size=(BATCH, SIZE, SIZE, 1)) + 0.3 * random.normal(size=(BATCH, SIZE, SIZE, 3))
    noise = np.fft.ifft2(np.fft.fft2(white, axes=(1, 2)) / frequency[..., None], axes=(1, 2)).real
    noise /= noise.std(axis=(1, 2, 3), keepdims=True)
    levels = random.uniform(80, 160, (BATCH, 1, 1, 1)) + random.uniform(20, 45, (BATCH, 1, 1, 1)) * noise
    rows, columns = np.mgrid[:SIZE, :SIZE]
    for image, _ in itertools.product(levels, range(6)):
        (top, left), (high, wide) = random.uniform(0, SIZE, 2), random.uniform(10, 60, 2)
        inside = ((rows - top) / high) ** 2 + ((columns - left) / wide) ** 2 < 1
        image[inside] = 0.4 * image[inside] + random.uniform(0, 160, 3)
    return levels.clip(0, 255).astype(np.uint8)


def read_photographs(folder: Path) -> np.ndarray:
    """The first 16 images below a folder, in evaluation geometry: uint8 [16, 224, 224, 3]."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpeg", ".jpg", ".png"))[:BATCH]
    if len(files) < BATCH:
        raise SystemExit(f"{folder} holds {len(files)} images; {BATCH} are needed")
    preprocessing = Preprocessing(size=SIZE, resize=SIZE * 8 // 7)
    arrays = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    return np.stack([apply_evaluation(array, preprocessing, ready_size=None) for array in arrays])


def pin_core() -> str:
    """One core and one thread for everybody, where the system allows it; what was done, in words."""
    torch.set_num_threads(1)
    if is_installed():
        import cv2

        cv2.setNumThreads(1)
    if not hasattr(os, "sched_setaffinity"):
        return "one thread, not pinned"
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    return "one pinned core"


def load_peers(folders: list[Path] | None) -> list[Peer]:
    """The installed peer, and those of other folders; none without --peers."""
    if folders is None:
        return []
    if not is_installed():
        raise SystemExit("No peer is installed: pip install -e '.[benchmark]' brings imagecorruptions-imaug.")
    return [load_peer(), *map(load_peer, folders)]


def measure(name: str, severity: int, images: np.ndarray, peers: list[Peer], rounds: int) -> dict[str, float]:
    """Milliseconds of processor time an image that each takes for one cell."""
    batch, index = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.arange(BATCH)

    def build(function: Callable[[int], object]) -> Callable[[], object]:
        turns = itertools.cycle(range(BATCH))  # everybody meets the same image in the same round
        return lambda: function(next(turns))

    def corrupt_ours(turn: int) -> Tensor:
        return corrupt(batch[turn : turn + 1], name, severity, seed=0, index=index[turn : turn + 1])

    def corrupt_theirs(peer: Peer, turn: int) -> np.ndarray:
        return peer.corrupt(images[turn], name, severity)

    calls = {peer.name: build(partial(corrupt_theirs, peer)) for peer in peers}
    calls[ONE] = build(corrupt_ours)
    calls[MANY] = lambda: corrupt(batch, name, severity, seed=0, index=index)
    seconds = time_interleaved(calls, rounds, clock=time.process_time)
    return {who: value * 1000 / (BATCH if who == MANY else 1) for who, value in seconds.items()}


def summarize(found: Milliseconds, names: list[str], label: str, peers: list[Peer]) -> list[str]:
    """A table row: sums over the severities of the named corruptions, and the cell where ours gains least."""
    sums = {who: sum(sum(found[name][who]) for name in names) for who in found[names[0]]}
    row = [label, f"{sums[ONE]:.1f}", f"{sums[MANY]:.1f}"]
    for peer in peers:
        starred = any(name in peer.mended for name in names)
        row += [f"{sums[peer.name]:.1f}{' *' if starred else ''}", f"{sums[peer.name] / sums[MANY]:.1f}"]
    if peers:
        cells = [(name, severity) for name in names for severity in range(len(SEVERITIES))]
        best = [min(found[name][peer.name][severity] for peer in peers) for name, severity in cells]
        ours = [found[name][MANY][severity] for name, severity in cells]
        row.append(f"{min(peer / our for peer, our in zip(best, ours, strict=True)):.1f}")
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--peers",
        type=Path,
        nargs="*",
        metavar="FOLDER",
        help="time the installed peer too, and those of folders made by pip install --no-deps --target FOLDER NAME",
    )
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="of photographs (default: made by the script)")
    parser.add_argument("--rounds", type=int, default=5, help="timed calls of each cell, after one to warm up")
    arguments = parser.parse_args()
    where, peers = pin_core(), load_peers(arguments.peers)
    images = read_photographs(arguments.images) if arguments.images else make_photographs()
    found: Milliseconds = {}
    for name in progress(list(CORRUPTIONS), description="timing", unit="corruption"):
        cells = [measure(name, severity, images, peers, arguments.rounds) for severity in SEVERITIES]
        found[name] = {who: [cell[who] for cell in cells] for who in cells[0]}
    print(f"Five severities of one image of {SIZE} px, ms of processor time on {where}, torch {torch.__version__}.\n")
    ratios = [title for peer in peers for title in (peer.name, f"{peer.name} / ours")]
    header = ["corruption", ONE, MANY, *ratios, *(["least cell: best peer / ours"] if peers else [])]
    fifteen = [name for name in CORRUPTIONS if CORRUPTIONS[name].in_mce15]
    rows = [summarize(found, [name], name, peers) for name in CORRUPTIONS]
    print_table(header, [*rows, summarize(found, fifteen, f"the {len(fifteen)} of a mean corruption error", peers)])
    for peer in peers:
        for name, error in peer.mended.items():
            print(f"\n\\* {peer.name} fails at {name} as installed ({error}); timed with what it lacks given back.")


if __name__ == "__main__":
    main()
