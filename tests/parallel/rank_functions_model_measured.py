"""What ranks do in `test_model_measured`: all in one launch."""

from minillm.parallel import model_measured


def everything() -> dict:
    """All that the notebooks of chapter 16 ask two ranks."""
    return {
        "tensor": model_measured.tensor_parallel(),
        "sequence": model_measured.tensor_parallel(sequence=True),
        "pipeline": model_measured.pipelined(4),
        "ring": model_measured.ring(64),
        "experts": model_measured.experts(),
    }
