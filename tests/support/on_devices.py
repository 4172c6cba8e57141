"""Solves on eight simulated devices beside the same solves on one, as a program of its own.

How many devices there are must be known before JAX starts. `test_devices.py` runs this and reads
what it says.
"""

import json
import os
import re
import sys

# What the pattern of a collective operation looks like in a compiled program.
COLLECTIVE = re.compile(
    r"\b(all-reduce|all-gather|collective-permute|all-to-all|reduce-scatter|collective-broadcast)"
    r"(?:-start)?\("
)
_CALLED = re.compile(
    r"(?:body|condition|to_apply|calls|true_computation|false_computation)=%?([\w.\-]+)"
)
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")


def collectives(text: str) -> tuple[list[str], list[str]]:
    """The collective operations in a compiled program, those inside loops and all others."""
    bodies: dict[str, list[str]] = {}
    current: list[str] = []
    for line in text.splitlines():
        header = re.match(r"^(?:ENTRY )?%?([\w.\-]+) .*\{$", line)
        if header:
            current = bodies.setdefault(header.group(1), [])
        current.append(line)
    waiting = [called for lines in bodies.values() for x in lines if " while(" in x
               for called in _calls(x)]  # fmt: skip
    inside: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name not in inside:
            inside.add(name)
            waiting += [called for line in bodies.get(name, []) for called in _calls(line)]
    found = lambda names: sorted(
        match.group(1) for name in names for line in bodies.get(name, [])
        for match in [COLLECTIVE.search(line)] if match
    )  # fmt: skip
    return found(inside), found(set(bodies) - inside)


def _calls(line: str) -> list[str]:
    branches = [name.strip(" %") for group in _BRANCHES.findall(line) for name in group.split(",")]
    return _CALLED.findall(line) + branches


def main(wanted: list[str]) -> None:
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count=8"
    import jax

    jax.config.update("jax_enable_x64", True)
    from support import solves_on_devices

    assert len(jax.devices()) == 8
    for name in wanted:
        case, kind = name.split("/")
        print(json.dumps(dict(name=name, **solves_on_devices.report(case, kind))), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
