"""The model card of a checkpoint written here: where it comes from and how to make it again."""

import json
import shlex
from collections.abc import Mapping, Sequence

from knowshift import __version__
from knowshift.weights.output import MARK


def card(
    title: str, summary: str, *, base: str, tuned: str, command: Sequence[str], facts: Mapping[str, object]
) -> str:
    """A README.md for the model hub.

    Args:
        title: of the model.
        summary: one paragraph on what was done to the weights.
        base, tuned: the two models, as the user named them.
        command: the command line that makes this folder again.
        facts: figures for the table.
    """
    rows = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    return f"""---
library_name: transformers
base_model:
- {json.dumps(tuned, ensure_ascii=False)}
tags:
- {MARK}
---

# {title}

{summary}

| | |
|---|---|
| base model | `{base}` |
| tuned model | `{tuned}` |
{rows}
| written by | knowshift {__version__} |

Names, shapes, types and sharding are the tuned model's. To make this folder again:

```
{shlex.join(command)}
```
"""
