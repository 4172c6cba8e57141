"""What a user can mend: the message says how."""


class UnknownNameError(ValueError):
    """A name that is in no registry; the message lists those that are."""


class SettingError(ValueError):
    """Settings that do not go together; the message says which."""


class RowsError(ValueError):
    """A file of rows that cannot be read; the message says where."""
