"""How `tensorflow_model_server` is started, here and in containers."""

# Loading in threads of its own holds up no request; a version that fails is tried twice, not six times a minute apart; and the
# profiler, which is on by default, lets any caller trace the server.
CAREFUL_FLAGS = (
    "--num_load_threads=2",
    "--num_unload_threads=1",
    "--max_num_load_retries=1",
    "--load_retry_interval_micros=1000000",
    "--enable_profiler=false",
)
