"""The text output of the benchmark command."""

from typing import Any


def table(report: dict[str, Any]) -> str:
    """Return the report of measurements as lines of text."""
    r = report
    lines = [
        f"{r['config']}: {r['model']}, {r['num_params']:,} parameters, {'x'.join(map(str, r['image_shape']))} images, "
        f"batch {r['batch_size']}, {r['optimizer']}, {r['dtype']}",
        f"{r['device']}; {r['cpu']}; {', '.join(f'{name} {number}' for name, number in r['versions'].items())}",
        f"the step compiled in {r['compile_seconds']:.1f} s; its program needs {_mib(r['program_bytes'])}"
        + (f", the device's peak is {_mib(r['peak_bytes'])}" if r["peak_bytes"] else ""),
        "",
        f"{'median of ' + str(r['rounds']) + ' rounds (min to max)':52}{'ms':>31}{'images/s per device':>22}",
    ]
    for name, s in r["milliseconds"].items():
        rate = r["images_per_second"].get(name)
        lines.append(f"{name:52}{_spread(s):>31}" + (f"{rate['median']:>22,.1f}" if rate else ""))
    flops = r["flops"]
    lines += [
        "",
        f"{flops['step'] / 1e9:,.3g} GFLOP in the matrix products of a step: {_spread(flops['gflop_per_second'])} "
        f"GFLOP/s per device, {_spread(flops['percent_of_product'])}% of the throughput of one large matmul",
    ]
    if r["ratios"]:
        width = max(map(len, r["ratios"])) + 2
        lines += ["", f"{'paired ratio':{width}}median (min to max)"]
        lines += [f"{name:{width}}{_spread(s)}" for name, s in r["ratios"].items()]
    if "logit_difference" in r:
        lines.append(f"with equal weights, PyTorch's logits differ by {r['logit_difference']:.1g} of the largest logit")
    return "\n".join(lines + [line for name, rows in r.get("scaling", {}).items() for line in _scaling(name, rows)])


def reading_table(report: dict[str, Any]) -> str:
    """Return a report of `reading.measure_reading` as lines of text."""
    shape = "x".join(map(str, report["image_shape"]))
    lines = [
        f"{report['images']:,} images to {shape}, batches of {report['batch_size']}; images/s, median of "
        f"{report['rounds']} rounds (min to max)"
    ]
    rows = report["images_per_second"] | ({"ratio": report["ratio"]} if "ratio" in report else {})
    return "\n".join(lines + [f"  {name:20} {_spread(s)}" for name, s in rows.items()])


def _scaling(name: str, rows: list[dict[str, Any]]) -> list[str]:
    lines = ["", f"{name:>12}{'ms per step':>31}{'vs. linear fit':>16}{'memory':>14}{'vs. linear fit':>16}"]
    for row in rows:
        of_line = f"{row['bytes_of_line']:>16.2f}" if "bytes_of_line" in row else ""
        lines.append(
            f"{row['value']:>12}{_spread(row['milliseconds']):>31}{row['time_of_line']:>16.2f}"
            f"{_mib(row['bytes']):>14}{of_line}"
        )
    return lines


def _spread(s: dict[str, float]) -> str:
    median, least, most = (f"{x:,.0f}" if x >= 1000 else f"{x:.3g}" for x in (s["median"], s["min"], s["max"]))
    return f"{median} ({least} to {most})"


def _mib(size: int | None) -> str:
    return "unknown memory" if size is None else f"{size / 2**20:,.1f} MiB"


def compiled_table(report: dict[str, Any]) -> str:
    """Return a report of `compiled.compile_for` as lines of text."""
    r = report
    parts = f" in {r['microbatches']} microbatches per device" if r["microbatches"] > 1 else ""
    lines = [
        f"{r['config']}: {r['model']}, {r['num_params']:,} parameters, {'x'.join(map(str, r['image_shape']))} images, "
        f"batch {r['batch_size']}{parts}, {r['dtype']}",
        f"compiled for {r['target']}, without the device; {', '.join(f'{k} {v}' for k, v in r['versions'].items())}",
        "the dataset is streamed" if r["streamed"] else f"the training set takes {_mib(r['set_bytes'])} of memory",
        "What follows is XLA's memory analysis and cycle estimate, not a measurement.",
    ]
    memory = _mib(r["chip"]["memory"])
    for title, row in r["programs"].items():
        lines += ["", title]
        if "does_not_fit" in row:
            lines.append(f"  DOES NOT FIT: {row['does_not_fit']}")
        if "device_bytes" not in row:
            continue
        lines += [
            f"  compiled in {row['compile_seconds']:.1f} s with {_mib(row['host_bytes'])} of the host's memory; "
            f"code {_mib(row['code_bytes'])}",
            f"  memory per device: {_mib(row['device_bytes'])} of {memory}; arguments {_mib(row['argument_bytes'])}, "
            f"temporary {_mib(row['temporary_bytes'])}",
        ]
        if row["step_cycles"]:
            estimate = f"  estimated cycles: {row['dispatch_cycles']:,} per dispatch, {row['step_cycles']:,} per step"
            if "milliseconds" in row:
                estimate += f", {row['milliseconds']:.3g} ms"
            if "images_per_second" in row:
                estimate += (
                    f"; {row['images_per_second']:,.0f} images/s per chip, {row['percent_of_peak']:.0f}% of peak"
                )
            lines.append(estimate)
        else:
            lines.append(
                f"  a step has {row['kernels']:,} kernels; moving their operands and results, at most "
                f"{_mib(row['bytes_moved'])}, takes up to {row['milliseconds_of_moving']:.3g} ms at the card's "
                "bandwidth; computing is not included"
            )
        lines.append(
            f"  not in the estimate: {row['gathers']} gathers ({row['single_gathers']} of single elements), "
            f"{row['scatters']} scatters, {row['sorts']} sorts, {row['open_loops']} data-dependent loops "
            f"(of {row['loops']} loops)"
        )
        for kind, cycles in row.get("kinds", {}).items():
            lines.append(f"    {100 * cycles / row['step_cycles']:5.1f}%  {kind}")
    if r["ratios"]:
        lines.append("")
    lines += [f"{name}: {ratio:.3f}" for name, ratio in r["ratios"].items()]
    return "\n".join(lines)
