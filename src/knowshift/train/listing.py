"""The methods of training as a table to read: ``knowshift train --methods``."""

from rich.table import Table

from knowshift.train.methods import METHODS, load


def table() -> Table:
    """Every method with its options, their defaults, and its source."""
    found = Table(title="Methods of training; several joined by + act together", title_justify="left", show_lines=True)
    for heading in ("--method", "what it is", "--set METHOD.OPTION=value", "source"):
        found.add_column(heading, overflow="fold")
    for name in METHODS:
        method = load(name)
        options = [
            f"{name}.{option}={field.default}" + (f"  {field.description}" if field.description else "")
            for option, field in method.model_fields.items()
        ]
        found.add_row(name, method.title, "\n".join(options), method.source)
    return found
