"""Whether a model fits: GPUs, drivers, number formats and the forecast of memory."""
