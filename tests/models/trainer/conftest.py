from in_this_process import denormals, one_thread, own_logging, pictures, precision, trainer  # noqa: F401
