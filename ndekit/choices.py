"""One of several words, as an argument."""


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Pass over one of `choices`.

    Raises:
        ValueError: for anything else.
    """
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, choices))}, got {value!r}.")
