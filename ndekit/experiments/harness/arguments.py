"""What argparse lacks: numbers as they stand on a command line, and mistakes in one sentence."""

import argparse
from collections.abc import Callable
from typing import NoReturn

USER_ERROR = 2


class Parser(argparse.ArgumentParser):
    """argparse, but a mistake is answered with one sentence instead of the usage."""

    def error(self, message: str) -> NoReturn:
        sentence = f"{message[0].upper()}{message[1:]}. See `{self.prog} --help`."
        self.exit(USER_ERROR, f"ndekit: {sentence}\n")


def count(least: int) -> Callable[[str], int]:
    """Whole numbers from this one."""

    def parse(text: str) -> int:
        if not text.lstrip("-").isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(f"expected a whole number from {least}, got {text!r}")
        return int(text)

    return parse


def numbers(text: str) -> list[float]:
    return [number(part) for part in text.split(",")]


def number(text: str) -> float:
    if not number_from_zero(text, "a positive number") > 0:
        raise argparse.ArgumentTypeError(f"expected a positive number, got {text!r}")
    return float(text)


def number_from_zero(text: str, wanted: str = "a number from 0") -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected {wanted}, got {text!r}")
    return value
