from in_this_process import one_thread  # noqa: F401
