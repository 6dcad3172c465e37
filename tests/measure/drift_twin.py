"""The slow twin of drift: both models whole and in float64, full logits, NumPy, one fact after the other."""

import numpy as np
import torch
from scipy.special import log_softmax
from transformers import AutoModelForCausalLM, AutoTokenizer

from knowshift.facts.prompts import qa_prompt


@torch.inference_mode()
def logits(folder, ids):
    """(length, vocabulary) logits in float64 after each of ``ids``."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    return [model(torch.tensor([row])).logits[0].numpy() for row in ids]


def teacher(base, tuned, facts):
    """For each fact: tokens, KL(tuned || base), KL(base || tuned), agreement, mean log-probabilities, prompt KL."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    words = len(tokenizer)
    prompts = [tokenizer(qa_prompt(fact.question)).input_ids for fact in facts]
    whole = [
        [*tokenizer(qa_prompt(fact.question) + fact.answers[0]).input_ids, tokenizer.eos_token_id] for fact in facts
    ]
    rows = []
    sides = zip(prompts, whole, logits(base, whole), logits(tuned, whole), strict=True)
    for prompt, ids, left, right in sides:
        left, right = (log_softmax(side[:-1, :words], axis=-1) for side in (left, right))
        forward = (np.exp(right) * (right - left)).sum(-1)
        backward = (np.exp(left) * (left - right)).sum(-1)
        agree = left.argmax(-1) == right.argmax(-1)
        places = np.arange(len(ids) - 1)
        answer = (places >= len(prompt) - 1) & (places < len(places) - 1)
        before = places < len(prompt) - 1
        follows = np.array(ids[1:])
        rows.append(
            {
                "tokens": int(answer.sum()),
                "kl_tuned_base": forward[answer].mean(),
                "kl_base_tuned": backward[answer].mean(),
                "top1_agree": agree[answer].mean(),
                "logprob_base": left[places, follows][answer].mean(),
                "logprob_tuned": right[places, follows][answer].mean(),
                "prompt_kl_tuned_base": forward[before].mean(),
                "end_kl_tuned_base": forward[-1],
            }
        )
    return rows


def paper(base, tuned, clozes, questions):
    """For each fact: KL(tuned || base) and back over the tuned model's ten likeliest first tokens."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    words = len(tokenizer)
    lefts = logits(base, [tokenizer(text).input_ids for text in clozes])
    rights = logits(tuned, [tokenizer(text).input_ids for text in questions])
    found = []
    for left, right in zip(lefts, rights, strict=True):
        left, right = left[-1, :words], right[-1, :words]
        ten = np.argsort(-right)[:10]
        p, q = log_softmax(right[ten]), log_softmax(left[ten])
        found.append((float((np.exp(p) * (p - q)).sum()), float((np.exp(q) * (q - p)).sum())))
    return found


def windows(base, tuned, sequences):
    """For each (ids read, how many of the last are measured): KL(tuned || base) at every measured position."""
    words = len(AutoTokenizer.from_pretrained(base))
    reads = [ids for ids, _ in sequences]
    found = []
    for (_, kept), left, right in zip(sequences, logits(base, reads), logits(tuned, reads), strict=True):
        left, right = (log_softmax(side[-kept:, :words], axis=-1) for side in (left, right))
        found.append((np.exp(right) * (right - left)).sum(-1))
    return found
