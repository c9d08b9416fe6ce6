"""The table: a line for each row as soon as it is measured. Read next: rows.py."""

UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns"))
HEAD = ("", "native", "ring3", "/native", "TCG", "ring3/TCG", "goals")
LINE = "{:<44} {:>10} {:>10} {:>8} {:>10} {:>10}  {}"


def format_seconds(seconds):
    if seconds is None:
        return "-"
    for size, unit in UNITS:
        if abs(seconds) >= size or unit == "ns":
            return f"{seconds / size:.2f} {unit}"
    raise AssertionError("the last unit takes all")


def format_ratio(ratio):
    return "-" if ratio is None else f"{ratio:.2f}" if ratio < 100 else f"{ratio:.0f}"


def judge(figure, row):
    """The goals of a row: [(text, is it met?)]; what could not be measured is not judged."""
    goals = []
    for value, bound, text in ((figure.over_native, row.over_native, "<={:.2f} native"),
                               (figure.over_tcg, row.over_tcg, "<={:.2f} TCG")):
        if bound is not None and value is not None:
            goals.append((text.format(bound), value <= bound))
    if row.seconds is not None and figure.seconds is not None:
        goals.append((f"<={format_seconds(row.seconds).replace('.00', '')}", figure.seconds <= row.seconds))
    return goals


def name_bound(figure, row):
    """If the native code misses a goal against TCG, too: by what ratio; else ''."""
    if figure.native is None or not figure.tcg or row.over_tcg is None or figure.native <= row.over_tcg * figure.tcg:
        return ""
    return f" (native: {figure.native / figure.tcg:.2f})"


def print_head(out):
    print(LINE.format(*HEAD), file=out, flush=True)


def print_row(label, figure, row, out):
    goals = "  ".join(f"{text} {'ok' if is_met else 'MISSED'}" for text, is_met in judge(figure, row))
    if goals.endswith("TCG MISSED"):
        goals += name_bound(figure, row)
    line = LINE.format(label, format_seconds(figure.native), format_seconds(figure.seconds),
                       format_ratio(figure.over_native), format_seconds(figure.tcg),
                       format_ratio(figure.over_tcg), goals)
    print(line.rstrip(), file=out, flush=True)
