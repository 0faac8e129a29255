"""What `probe.geometry` costs beside a probe, on a random model of SmolLM2's shape.

`python -m benchmarks.geometry --layers 12 --examples 96`
"""

from __future__ import annotations

from benchmarks.measure import interleaved
from benchmarks.shared_passes import drawn_study, silent, size_parser
from engine.models.lens import find_lens
from engine.progress import StopRequest
from engine.stages.geometry import Geometry
from engine.stages.geometry_measures import MEASURES
from engine.stages.probe import probe_layers
from engine.stages.probe_layout import layer_numbers, probe_family
from specs.common.names import GRAM
from specs.tables.probe import Probe


def main() -> None:
    options = size_parser(__doc__).parse_args()
    model, writer, rows = drawn_study(options.layers, options.examples, options.words)
    lens, watched = find_lens(model), writer.first_tokens(rows[0])

    def run(*names: str) -> None:
        probe = Probe(batch_size=options.batch, geometry=list(names))
        layers = layer_numbers(probe, options.layers)
        geometry = Geometry(probe, layers, len(rows))
        family = probe_family(rows, layers, watched, probe, lens.heads)
        parts = probe_layers(
            [lens], writer.tokenizer, writer, rows, family, probe, silent, StopRequest(), geometry=geometry
        )
        list(parts)
        if names:
            geometry.results([])

    steps = {"probe": run, "all measures": lambda: run(*MEASURES), "gram": lambda: run(GRAM)}
    print(f"{'':<14}{'seconds':>9}{'/ probe':>12}{'quartiles':>14}{'CPU':>7}")
    for name, taken in interleaved(steps, options.rounds).items():
        quartiles = f"{taken['ratio_low']:.2f}–{taken['ratio_high']:.2f}"
        ratios = f"{taken['ratio']:>12.3f}{quartiles:>14}{taken['cpu_ratio']:>7.3f}"
        print(f"{name:<14}{taken['seconds']:>9.2f}{ratios}")


if __name__ == "__main__":
    main()
