"""Errors that rekv raises at its borders. Each message says what to do next."""


class RekvError(Exception):
    """Base of every error that rekv raises on purpose."""


class VideoError(RekvError):
    """A video that cannot be opened, has no pictures, or stopped being readable."""


class ModelError(RekvError):
    """A model that cannot be found, loaded, or that the method cannot reproduce."""


class ConfigError(RekvError, ValueError):
    """A setting that is out of range or contradicts another one."""


class SessionError(RekvError):
    """A call that a session's state does not allow."""
