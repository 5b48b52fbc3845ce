"""What loading raises."""


class CheckpointError(ValueError):
    """A file that is no checkpoint, is damaged, is refused, or does not fit the model; the message names the file."""
