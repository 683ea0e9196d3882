"""Of the tests here that compare a process with a training in their own: the fixtures of `tests/models/trainer`."""

from in_this_process import denormals, one_thread, own_logging, pictures, precision, trainer  # noqa: F401
