"""A plain vLLM, answering over pipes: the rival of ``mastery.py``, run by the Python of its own environment.

It knows nothing of knowshift. It reads one JSON request a line and writes one JSON reply a line; what vLLM itself
prints goes to standard error.
"""

import json
import os
import sys
import time


def main() -> None:
    options = json.loads(sys.argv[1])
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # vLLM's processes write to standard output
    begun = time.monotonic()
    import vllm

    model = vllm.LLM(generation_config="vllm", enable_prefix_caching=True, disable_log_stats=True, **options)
    print(json.dumps({"version": vllm.__version__, "load_seconds": time.monotonic() - begun}), file=replies)
    for line in sys.stdin:
        request = json.loads(line)
        params = vllm.SamplingParams(
            n=request["samples"], temperature=request["temperature"], top_p=1.0, top_k=0, max_tokens=request["tokens"]
        )
        prompts = [{"prompt_token_ids": ids} for ids in request["prompts"]]
        begun = time.monotonic()
        outputs = model.generate(prompts, params, use_tqdm=False)
        seconds = time.monotonic() - begun
        draws = [[[one.text, list(one.token_ids)] for one in output.outputs] for output in outputs]
        print(json.dumps({"seconds": seconds, "draws": draws}), file=replies)


if __name__ == "__main__":  # vLLM starts its processes by importing this file again
    main()
