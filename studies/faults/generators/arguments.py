"""Names, URLs with passwords, and values of options."""

from __future__ import annotations

import os

from faults.generators.case import SECRET, Case, Sandbox
from faults.generators.images import encoded, write_classes

_NAMES = (
    *(
        "a\nb",
        "a\x1b[31mb\x1b]0;title\x07",
        "😀🎉",
        "é" * 127,
        "x" * 255,
        "x" * 300,
        "<img src=x onerror=alert(1)>",
        "=1+1",
    ),
    *(
        "..",
        ".",
        "../../escaped",
        "/tmp/escaped",
        "a/b",
        "C:\\x",
        "-rf",
        "$(touch x)",
        "`id`",
        "\u202eevil",
        "con",
        "\x7f",
    ),
    *("a\rb", "a\tb", " ", "'; DROP TABLE studies; --", "%s%n", "{{7*7}}", "{% raw %}", "\ud800"),
)
_VALUES = (
    "-1",
    "0",
    "nan",
    "inf",
    "1e999",
    "",
    " ",
    "9" * 400,
    "0x10",
    "1_000",
    "٣",
    "None",
    "[]",
    "😀",
    "\x1b[31m",
    "-0.0",
)
_OPTIONS = (
    *(
        "--budget",
        "--epochs",
        "--workers",
        "--final-seeds",
        "--seed",
        "--shots",
        "--classes",
        "--image-size",
        "--backbone",
    ),
    *("--pruner", "--metric", "--space", "--engine", "--resize", "--min-gain", "--gpus-per-trial", "--cpus-per-trial"),
    *("--scenario", "--tasks", "--teacher", "--dataset", "--weights", "--ignore", "--beliefs", "--ray-address"),
)


def bad_names(sandbox: Sandbox) -> Case:
    """A name of a study, or of a class: escapes, markup, line breaks, 255 bytes."""
    rng, name = sandbox.rng, sandbox.rng.choice(_NAMES)
    if (
        rng.random() < 0.5
        and os.sep not in name
        and name not in (".", "..")
        and len(os.fsencode(name.replace("\ud800", ""))) <= 255
    ):
        name = name.replace("\ud800", "\udcff")  # a byte that is no UTF-8
        folder = sandbox.folder / "images"
        write_classes(folder, rng, (name, "b"), images=12)
        (folder / "b" / f"{name[:40]}.png").write_bytes(encoded(rng))
        return Case(f"class named {ascii(name)[:30]}", ("check", "--dataset", str(folder)), (0, 2))
    name = name.replace("\ud800", "\udcff")
    commands = (
        ("report", "--", name),
        ("sync", "--", name),
        ("search", "--dataset", "digits", "--budget", "0", f"--study={name}"),
        ("train", "--dataset", "digits", f"--study={name}"),
    )
    command = rng.choice(commands)
    return Case(f"study named {ascii(name)[:30]} for {command[0]}", command)


def bad_urls(sandbox: Sandbox) -> Case:
    """A URL with a password that cannot be used."""
    rng = sandbox.rng
    host = rng.choice(("127.0.0.1:1", "localhost:99999", "[::1", "127.0.0.1", "no.such.host.invalid:1", ""))
    storage = rng.choice(("postgresql", "mysql", "mssql", "sqlite", "made-up", "postgresql+psycopg"))
    server = rng.choice(("http", "https", "postgresql", "ftp", "sqlite"))
    storage_url, tracking_url = (f"{scheme}://user:{SECRET}@{host}/x" for scheme in (storage, server))
    if rng.random() < 0.2:
        tracking_url = tracking_url.replace("user:", "user%40x:").replace(SECRET, f"{SECRET}%2F{SECRET}@")
    commands = (
        ("studies", "--storage", storage_url),
        ("report", "s", "--storage", storage_url),
        ("search", "--dataset", "digits", "--budget", "1", "--storage", storage_url, "-v"),
        ("sync", "s", "--storage", f"sqlite:///{sandbox.store}", "--tracking-uri", tracking_url),
        ("sync", "s", "--storage", f"sqlite:///{sandbox.store}", "--tracking-uri", tracking_url, "-v"),
        ("search", "--dataset", "digits", "--budget", "0", "--tracking-uri", tracking_url),
        ("search", "--dataset", f"http://user:{SECRET}@{host}/x", "--budget", "1"),
    )
    command = rng.choice(commands)
    codes = (0, 1, 2) if command[0] == "studies" else (1, 2)  # a file of SQLite that does not exist has no studies
    return Case(f"URL for {command[0]}: {storage if '--storage' in command else server}://...{host}", command, codes)


def bad_arguments(sandbox: Sandbox) -> Case:
    """A value of an option that is out of range, of another type, or empty; the rest would start no training either."""
    rng, option = sandbox.rng, sandbox.rng.choice(_OPTIONS)
    value = rng.choice(_VALUES)
    values = {"--dataset": "digits", "--budget": "0"} | {option: value}
    words = [f"{name}={text}" for name, text in values.items()]
    return Case(f"{option}={ascii(value)[:20]}", ("search", *words))
