"""A recipe that needs no torch, and a program in the place of python that does what steps do, in no time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from analysis.ablation.basis import Basis

SETTINGS = {
    "method": "mae",
    "image_size": 128,
    "target": "normalised",
    "radius": 11.43,
    "crop": "rrc",
    "epochs": 3,
    "batch_size": 10,
    "save_every": 4,
    "precision": "fp32",
    "data_digest": "0123456789abcdef",
}
# What it is told by: files in its folder. "calls" collects the commands; "refuse", "fail", "kill" and "wait" hold words
# of commands that are refused as bad input, fail at their end, are killed when half is done, or wait there; rows
# of those that "tell" say how their model was pretrained.
PROGRAM = """#!{python} -IS
import json, os, shlex, signal, sys, time
from pathlib import Path

home, words = Path({home!r}), sys.argv[1:]
command = shlex.join(["python", *words])
with (home / "calls").open("a") as file:
    file.write(command + "\\n")
after = lambda flag: words[words.index(flag) + 1]
has = lambda name: (home / name).exists() and any(word in command for word in (home / name).read_text().split())
settings = json.loads((home / "settings.json").read_text())
supervised = "deit3" in command
if supervised:
    settings |= {{"method": "deit3", "target": "normalised"}}
for key, kind in (("target", str), ("radius", float), ("crop", str), ("epochs", int), ("batch_size", int)):
    flag = "--" + key.replace("_", "-")
    if flag in words:
        settings[key] = kind(after(flag))
if "unknown" in command or has("refuse"):
    sys.exit("error: recipe: expected a name, found 'unknown'")
if "--dry-run" in words:
    told = {{"settings": settings, "supervised": supervised, "images": 45, "steps": 4, "short_side": 128}}
    print(json.dumps(told))
    sys.exit()
print("working")
out = Path(after("--out"))
if "pretrain.run" in words:
    out.mkdir(parents=True, exist_ok=True)
    (out / "recipe.json").write_text(json.dumps(settings))
    log = out / "log.jsonl"
    first = len(log.read_text().splitlines()) if log.exists() else 0
    with log.open("a") as file:
        for step in range(first, 4 * settings["epochs"]):
            if step == 6 and first == 0 and has("kill"):
                file.flush()
                os.kill(os.getpid(), signal.SIGKILL)
            if step == 6 and has("wait"):
                file.flush()
                (home / "waiting").write_text(str(os.getpid()))
                time.sleep(60)
            record = {{"step": step, "epoch": step // 4, "loss": 1.0, "images_per_second": 100.0}}
            file.write(json.dumps(record) + "\\n")
    if has("fail"):
        sys.exit(3)
    (out / f"epoch-{{settings['epochs']:04d}}.safetensors").write_text(json.dumps(settings))
else:
    if has("fail"):
        sys.exit(4)
    suite, row = after("--suite"), json.loads((home / "row.json").read_text())
    row |= {{"suite": suite, "command": command, "run": out.name, "condition": "clean"}}
    if has("tell"):  # what analysis draws by
        trained = json.loads(Path(after("--checkpoint")).read_text())
        told = {{key: trained[key] for key in ("crop", "image_size", "target")}} | {{"others": "1f0c4e2a", "seed": 0}}
        if trained["target"] == "lowfreq":
            told["radius"] = f"{{trained['radius']:g}}"
        row["pretraining"] = ";".join(f"{{key}}={{value}}" for key, value in sorted(told.items()))
        row["weights_digest"] = out.name.encode().hex().ljust(16, "0")[:16]
    (out / "rows").mkdir(parents=True, exist_ok=True)
    content = {{"schema": 2, "key": "0" * 16, "rows": [row], "hits": {{}}}}
    (out / "rows" / f"{{suite}}-mae-clean-{{suite.encode().hex()[:16]}}.json").write_text(json.dumps(content))
"""


def build_basis(words: str = "mae-64px --epochs 3", **changes: Any) -> Basis:
    """A recipe as pretrain.run would describe it."""
    settings = {**SETTINGS, **{key: value for key, value in changes.items() if key in SETTINGS}}
    given = {"supervised": False, "images": 45, "steps": 4, "short_side": 128}
    given |= {key: value for key, value in changes.items() if key in given}
    return Basis(tuple(words.split()), settings, **given)


class Program:
    """What was called, and what is to fail."""

    def __init__(self, home: Path) -> None:
        self.home = home

    @property
    def calls(self) -> list[str]:
        """Commands so far."""
        file = self.home / "calls"
        return file.read_text().splitlines() if file.exists() else []

    def set(self, name: str, *words: str) -> None:
        """Commands with one of these words fail, are killed, or wait."""
        (self.home / name).write_text(" ".join(words))
