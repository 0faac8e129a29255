"""What `probe.streams` and `probe.attribution` cost beside a probe, on a random model of SmolLM2's shape.

`python -m benchmarks.streams --layers 12 --examples 64`
"""

from __future__ import annotations

from typing import Any

from benchmarks.measure import interleaved
from benchmarks.shared_passes import drawn_study, silent, size_parser
from engine.models.block_streams import check_blocks
from engine.models.lens import find_lens
from engine.progress import StopRequest
from engine.stages.probe import probe_layers
from engine.stages.probe_layout import layer_numbers, probe_family
from specs.tables.probe import Probe


def main() -> None:
    options = size_parser(__doc__).parse_args()
    model, writer, rows = drawn_study(options.layers, options.examples, options.words)
    lens, watched = find_lens(model), writer.first_tokens(rows[0])
    blocks = check_blocks(lens)

    def run(**asked: Any) -> None:
        probe = Probe(batch_size=options.batch, **asked)
        layers = layer_numbers(probe, options.layers)
        family = probe_family(rows, layers, watched, probe, lens.heads, added=blocks.kinds)
        known = blocks if probe.attribution else None
        stop = StopRequest()
        list(probe_layers([lens], writer.tokenizer, writer, rows, family, probe, silent, stop, blocks=known))

    steps = {
        "probe": run,
        "attention, mlp": lambda: run(streams=["attention", "mlp"]),
        "attribution": lambda: run(attribution=True),
        "per head": lambda: run(attribution=True, attribution_per_head=True),
    }
    print(f"{'':<16}{'seconds':>9}{'/ probe':>12}{'quartiles':>14}{'CPU':>7}")
    for name, taken in interleaved(steps, options.rounds).items():
        quartiles = f"{taken['ratio_low']:.2f}–{taken['ratio_high']:.2f}"
        ratios = f"{taken['ratio']:>12.3f}{quartiles:>14}{taken['cpu_ratio']:>7.3f}"
        print(f"{name:<16}{taken['seconds']:>9.2f}{ratios}")


if __name__ == "__main__":
    main()
