"""The exception that is no matter of arguments: what is asked for cannot be done on this machine."""


class BackendError(RuntimeError):
    """A library, a device or a compiler is missing that a backend needs. Says which, and what to do."""
