"""YAML files and CSV files."""

from __future__ import annotations

from collections.abc import Callable

from faults.generators.case import CANARY, Case, Sandbox
from faults.generators.images import write_classes

_CODE = f"touch {CANARY}"
_YAML = {
    "tag of Python": f"epochs: !!python/object/apply:os.system ['{_CODE}']",
    "new object": f"!!python/object/new:subprocess.Popen [['touch', '{CANARY}']]",
    "unknown tag": "epochs: !made-up 3",
    "aliases that grow": "\n".join(
        ["a: &a [x, x, x, x, x, x, x, x, x]"]
        + [f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)]
    ),
    "deep nesting": "[" * 3000,
    "deep mapping": "{a: " * 900,
    "list": "- 1\n- 2",
    "scalar": "hello",
    "empty": "",
    "key twice": "epochs: 3\nepochs: 4",
    "unknown key": "epoch: 3",
    "wrong types": "epochs: [1, {a: b}]\nhead_lr: yes",
    "NaN": "head_lr: .nan\nbody_lr: .inf",
    "negative": "epochs: -3",
    "huge number": f"epochs: {'9' * 400}",
    "date": "epochs: 2020-01-01",
    "numbers as keys": "1: 2\n3: 4",
    "list as key": "? [a, b]\n: c",
    "control characters": "epochs: \x07\x1b[31m3",
    "unclosed quote": 'epochs: "3',
    "tabs": "epochs:\n\t- 3",
    "recursive": "a: &a [*a]",
    "merge of a scalar": "<<: 3",
}
_COMMANDS = (
    ("train", "--dataset", "digits", "--weights", "none", "--settings"),
    ("search", "--dataset", "digits", "--budget", "1", "--space"),
    ("search", "--config"),
    ("search", "--dataset", "digits", "--budget", "1", "--backbones"),
)


def bad_yaml(sandbox: Sandbox) -> Case:
    """A file of settings, a search space, a configuration, or a list of backbones."""
    rng, path = sandbox.rng, sandbox.folder / "file.yaml"
    name = rng.choice([*_YAML, "other encoding", "bytes"])
    if name == "other encoding":
        path.write_bytes("epochs: 3 # ä\n".encode(rng.choice(("utf-16", "latin-1", "utf-32"))))
    elif name == "bytes":
        path.write_bytes(rng.randbytes(300))
    else:
        path.write_text(_YAML[name], encoding="utf-8")
    command = rng.choice(_COMMANDS)
    # Without settings, the default ones are used: an empty file is valid, and would train.
    if name in ("empty", "other encoding") and command[0] == "train":
        command = _COMMANDS[2]
    return Case(f"YAML for {command[-1]}: {name}", (*command, str(path)))


def bad_manifests(sandbox: Sandbox) -> Case:
    """A CSV file that names images and their labels."""
    rng, path = sandbox.rng, sandbox.folder / "images.csv"
    write_classes(sandbox.folder, rng, images=4)
    rows = [f"{name}/{number}.png,{name}" for name in "ab" for number in range(4)]
    good = "\n".join(["path,label", *rows]) + "\n"
    name = rng.choice(list(_MANIFESTS))
    content = _MANIFESTS[name](good, rng.choice(("a", "b")))
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogateescape"))
    return Case(f"CSV: {name}", ("check", "--dataset", str(path), "--json"), (0, 1, 2))  # 1: a check found an error


_MANIFESTS: dict[str, Callable[[str, str], str | bytes]] = {
    "UTF-16": lambda good, name: good.encode("utf-16"),
    "Latin-1": lambda good, name: (good + f"{name}/0.png,Käse\n").encode("latin-1"),
    "byte order mark": lambda good, name: good.encode("utf-8-sig"),
    "null bytes": lambda good, name: good.replace(",a", ",a\0"),
    "no header": lambda good, name: good.split("\n", 1)[1],
    "no label": lambda good, name: good.replace(",a", ""),
    "missing files": lambda good, name: good.replace(".png", ".jpg"),
    "outside paths": lambda good, name: good + "../../../../etc/passwd,a\n/etc/shadow,b\n",
    "URLs": lambda good, name: good + "http://127.0.0.1:1/x.png,a\nfile:///etc/passwd,b\n",
    "folder as image": lambda good, name: good + f"{name},a\n",
    "device as image": lambda good, name: good + "/dev/zero,a\n/dev/stdin,b\n",
    "same image twice": lambda good, name: good + "a/0.png,b\n",
    "unknown part": lambda good, name: good.replace("label", "label,split", 1).replace(".png,a", ".png,a,tset"),
    "column twice": lambda good, name: good.replace("path,label", "path,label,label", 1),
    "formula": lambda good, name: good.replace(",a", ",\"=cmd|' /C calc'!A0\""),
    "markup": lambda good, name: good.replace(",a", ",<img src=x onerror=alert(1)>"),
    "control characters": lambda good, name: good.replace(",a", ",\x1b]0;x\x07\x1b[31m"),
    "quote without end": lambda good, name: good.replace(",a", ',"a', 1),
    "line breaks in labels": lambda good, name: good.replace(",a", ',"a\nb"'),
    "very long field": lambda good, name: good + f"a/0.png,{'x' * 200_000}\n",
    "one class": lambda good, name: good.replace(",b", ",a"),
    "empty": lambda good, name: "",
    "header only": lambda good, name: "path,label\n",
    "semicolons": lambda good, name: good.replace(",", ";"),
    "bytes": lambda good, name: bytes(range(256)) * 5,
}
