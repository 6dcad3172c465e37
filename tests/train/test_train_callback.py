"""The callback in other people's trainers: they train as without it, and its figures are those of a plain loop."""

import logging
from pathlib import Path
from typing import Any

import pytest
import taught
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainerCallback, TrainingArguments
from trl import SFTConfig, SFTTrainer

import knowshift
from knowshift.errors import InputError
from knowshift.facts.fact import write_jsonl
from knowshift.measure.forms import continuation, put
from knowshift.train.knowledge.reading import undisturbed

PAIRS = [{"prompt": f"<|question|>Who is {n}?<|answer|>", "completion": f"abc {n} xyz"} for n in range(24)]
CALLBACK = {"facts": taught.FACTS, "form": "plain", "every": 3, "max_lost": None}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return taught.taught(tmp_path_factory.mktemp("taught") / "model")


def trainer(
    base: Path, folder: Path, *callbacks: TrainerCallback, lora: bool | str = False, **settings: Any
) -> SFTTrainer:
    """A TRL script as its users write it; dropout makes the random state matter. ``lora`` may say how it begins."""
    fixed = {"learning_rate": 3e-3, "max_steps": 7, "logging_steps": 2, "per_device_train_batch_size": 4, "seed": 3}
    fixed |= {"save_strategy": "no", "report_to": "none", "use_cpu": not torch.cuda.is_available(), "bf16": False}
    return SFTTrainer(
        AutoModelForCausalLM.from_pretrained(base, attention_dropout=0.1, dtype=torch.float32),
        args=SFTConfig(str(folder), **(fixed | {"disable_tqdm": True} | settings)),
        train_dataset=Dataset.from_list(PAIRS),
        processing_class=AutoTokenizer.from_pretrained(base),
        peft_config=LoraConfig(r=4, lora_dropout=0.1, target_modules="all-linear", init_lora_weights=lora)
        if lora
        else None,
        callbacks=list(callbacks),
    )


def trained(trainer: Trainer) -> tuple[list[dict[str, Any]], dict[str, torch.Tensor]]:
    """What a finished run logged, times aside and without the panel's rows, and its weights."""
    trainer.train()
    timed = ("train_runtime", "train_samples_per_second", "train_steps_per_second")
    rows = [row for row in trainer.state.log_history if "knowledge_kl" not in row]
    return [{key: row[key] for key in row if key not in timed} for row in rows], trainer.model.state_dict()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"bf16": True, "gradient_checkpointing": True, "gradient_accumulation_steps": 2},
        {"lora": True},
    ],
    ids=["full", "bf16 checkpointed accumulated", "lora"],
)
def test_training_is_bit_for_bit_what_it_is_without(base: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    callback = knowshift.KnowledgeCallback(**CALLBACK)
    rows, weights = trained(trainer(base, tmp_path / "a", **settings))
    with_rows, with_weights = trained(trainer(base, tmp_path / "b", callback, **settings))
    assert with_rows == rows and [row["step"] for row in rows] == [2, 4, 6, 7]
    assert weights.keys() == with_weights.keys()
    assert all(torch.equal(weights[name], with_weights[name]) for name in weights)
    assert [score.step for score in callback.scores] == [3, 6, 7]


def literally(base: Any, now: Any, tokenizer: Any, facts: list[Any]) -> dict[str, Any]:
    """The slow twin: one fact and one token at a time, whole softmaxes in float64."""
    kl: list[float] = []
    change: list[float] = []
    lost: list[str] = []
    for fact in facts:
        asked = tokenizer(put(fact.question, "plain").text).input_ids
        whole = tokenizer(put(fact.question, "plain").text + continuation(fact.answers[0], "plain")).input_ids
        right = True
        for place in range(len(asked), len(whole)):
            ids = torch.tensor([whole[:place]])
            p, q = (model(input_ids=ids).logits[0, -1].double().softmax(-1) for model in (now, base))
            kl.append(float((p * (p.log() - q.log())).sum()))
            change.append(float(p[whole[place]].log() - q[whole[place]].log()))
            right &= int(p.argmax()) == whole[place]
        if not right:
            lost.append(fact.question)
    return {"kl": sum(kl) / len(kl), "log_prob": sum(change) / len(change), "lost": lost}


@torch.no_grad()
def literal_change(base: Any, now: Any) -> float:
    """||W - W0|| / ||W0||, tied weights once."""
    pairs = list(zip(base.parameters(), now.parameters(), strict=True))
    moved = sum(float((after.double() - before.double()).square().sum()) for before, after in pairs)
    return (moved / sum(float(before.double().square().sum()) for before, _ in pairs)) ** 0.5


@pytest.mark.parametrize("lora", [False, True, "pissa", "olora"], ids=["full", "lora", "pissa", "olora"])
def test_figures_are_those_of_a_plain_loop(
    base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, lora: bool | str
) -> None:
    callback = knowshift.KnowledgeCallback(**CALLBACK | {"every": 50})
    run = trainer(base, tmp_path, callback, lora=lora, learning_rate=2e-2 if lora else 3e-3, max_steps=12)
    run.train()
    (score,) = callback.scores
    panel = callback.panel
    assert panel is not None and panel.asked == len(taught.FACTS)
    loaded = AutoModelForCausalLM.from_pretrained(base)
    now = (run.model.merge_and_unload() if lora else run.model).cpu().eval()
    facts = [fact for fact in taught.FACTS if fact.question in panel.names]
    with torch.no_grad():
        unknown = [f.question for f in taught.FACTS if literally(loaded, loaded, run.processing_class, [f])["lost"]]
        expected = literally(loaded, now, run.processing_class, facts)
    assert sorted([*panel.names, *unknown]) == sorted(fact.question for fact in taught.FACTS) and unknown
    assert score.kl == pytest.approx(expected["kl"], rel=1e-3) and score.kl > 0.01
    assert score.log_prob == pytest.approx(expected["log_prob"], rel=1e-3)
    assert sorted(score.names) == sorted(expected["lost"]) and len(score.names) > 0
    assert score.lost == len(score.names) / len(panel.names)
    said = [record.getMessage() for record in caplog.records if record.name.startswith("knowshift")]
    if isinstance(lora, str):  # without its adapter the model is not the base
        assert score.weights is None and [f"init_lora_weights={lora} changes" in line for line in said] == [True]
    else:
        assert score.weights == pytest.approx(literal_change(loaded, now), rel=1e-3) and not said


class Reporter(TrainerCallback):
    """Stands before the callback in the list, as transformers puts its integrations (wandb, tensorboard, trackio)."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, Any]]] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        self.rows.append((state.global_step, dict(logs)))


def test_every_listener_and_the_history_get_the_figures(base: Path, tmp_path: Path) -> None:
    reporter = Reporter()
    run = trainer(base, tmp_path, reporter)
    run.add_callback(knowshift.KnowledgeCallback(**CALLBACK))
    run.train()
    history = [row for row in run.state.log_history if "knowledge_kl" in row]
    reported = [(step, row) for step, row in reporter.rows if "knowledge_kl" in row]
    assert [step for step, _ in reported] == [row["step"] for row in history] == [3, 6, 7]
    for (_, row), kept in zip(reported, history, strict=True):
        assert row == {key: kept[key] for key in kept if key != "step"}
        assert row["knowledge_kept"] + row["knowledge_lost"] == 1 and row["knowledge_panel"] >= 5
        assert row["knowledge_seconds"] > 0 and row["knowledge_overhead"] > 0
        assert not row.keys() & {"loss", "entropy", "mean_token_accuracy"}


def test_it_works_in_transformers_own_trainer_and_asks_for_a_tokenizer(base: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base)
    rows = [{"input_ids": (ids := tokenizer("abc xyz 012").input_ids), "labels": ids}] * 8
    args = TrainingArguments(
        str(tmp_path), max_steps=2, report_to="none", save_strategy="no", use_cpu=not torch.cuda.is_available()
    )

    def run(**options: Any) -> Trainer:
        callback = knowshift.KnowledgeCallback(**CALLBACK | options)
        return Trainer(AutoModelForCausalLM.from_pretrained(base), args, train_dataset=rows, callbacks=[callback])

    with pytest.raises(InputError, match="no tokenizer"):
        run().train()
    given = run(tokenizer=tokenizer)
    given.train()
    assert given.state.log_history[0]["knowledge_panel"] >= 5


def test_an_adapter_that_was_trained_before_is_not_the_base(base: Path, tmp_path: Path) -> None:
    """Where training of an adapter goes on, the base is still the model without it."""
    callback = knowshift.KnowledgeCallback(**CALLBACK | {"every": 1})
    run = trainer(base, tmp_path, callback, lora=True, max_steps=1, learning_rate=1e-12)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in run.model.named_parameters():
            if "lora_B" in name:
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.3)
    run.train()
    (score,) = callback.scores
    assert score.kl > 0.1 and score.lost is not None and score.lost > 0


def test_stopping_keeps_the_last_step_within_bounds(
    base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keep = tmp_path / "kept"
    watch = knowshift.KnowledgeCallback(**CALLBACK | {"every": 1})
    run = trainer(base, tmp_path / "a", watch, learning_rate=1e-3, max_steps=12, lr_scheduler_type="constant")
    run.train()
    kls = [score.kl for score in watch.scores]
    last = next(index for index in range(len(kls)) if kls[index + 1] > 2 * kls[2])
    with caplog.at_level(logging.WARNING, "knowshift"):
        callback = knowshift.KnowledgeCallback(**CALLBACK | {"every": 1, "max_kl": 2 * kls[2]}, stop=True, keep=keep)
        stopped = trainer(
            base, tmp_path / "b", callback, learning_rate=1e-3, max_steps=12, lr_scheduler_type="constant"
        )
        stopped.train()
    assert stopped.state.global_step == last + 2 == callback.passed.step and callback.kept_step == last + 1
    assert [score.kl for score in callback.scores] == kls[: last + 2]
    (said,) = [record.getMessage() for record in caplog.records]
    assert f"KL to the base is {kls[last + 1]:.4g} at step {last + 2}, above the bound of" in said
    # The copy is that step's: scored again it gives that step's figures.
    loaded = AutoModelForCausalLM.from_pretrained(keep)
    facts = [fact for fact in taught.FACTS if fact.question in callback.panel.names]
    with torch.no_grad():
        again = literally(AutoModelForCausalLM.from_pretrained(base), loaded, run.processing_class, facts)
    assert again["kl"] == pytest.approx(kls[last], rel=1e-3)
    assert AutoTokenizer.from_pretrained(keep).get_vocab() == run.processing_class.get_vocab()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_without_stop_it_warns_once(base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    callback = knowshift.KnowledgeCallback(**CALLBACK | {"max_lost": 0.0}, keep=tmp_path / "kept")
    with caplog.at_level(logging.WARNING, "knowshift"):
        run = trainer(base, tmp_path / "a", callback, learning_rate=2e-2)
        run.train()
    assert run.state.global_step == 7
    assert [record.getMessage().count("facts that are lost") for record in caplog.records] == [1]
    assert callback.kept_step is None and not (tmp_path / "kept").exists()


@pytest.mark.parametrize("lora", [False, "pissa"], ids=["full", "pissa"])
def test_a_resumed_run_measures_against_the_same_base(base: Path, tmp_path: Path, lora: bool | str) -> None:
    settings = {"save_strategy": "steps", "save_steps": 3, "max_steps": 6, "lora": lora}
    whole = knowshift.KnowledgeCallback(**CALLBACK)
    trainer(base, tmp_path / "a", whole, **settings).train()
    resumed = knowshift.KnowledgeCallback(**CALLBACK)
    trainer(base, tmp_path / "a", resumed, **settings).train(resume_from_checkpoint=str(tmp_path / "a/checkpoint-3"))
    assert resumed.scores == whole.scores and [score.step for score in resumed.scores] == [3, 6]
    other = knowshift.KnowledgeCallback(**CALLBACK | {"size": 5})
    with pytest.raises(InputError, match="made with other facts or settings"):
        trainer(base, tmp_path / "a", other, **settings).train(resume_from_checkpoint=str(tmp_path / "a/checkpoint-3"))
    (tmp_path / "a/knowledge-0.safetensors").unlink()
    with pytest.raises(InputError, match=r"knowledge-0\.safetensors: no such file"):
        trainer(base, tmp_path / "a", whole, **settings).train(resume_from_checkpoint=str(tmp_path / "a/checkpoint-3"))


class Stopper(TrainerCallback):
    """Ends training after a step, as early stopping does."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_training_stop |= state.global_step == self.step


def test_where_others_end_training_the_last_step_is_scored(base: Path, tmp_path: Path) -> None:
    callback = knowshift.KnowledgeCallback(**CALLBACK)
    run = trainer(base, tmp_path, callback, Stopper(5))
    run.train()
    assert [score.step for score in callback.scores] == [3, 5]
    assert [row["step"] for row in run.state.log_history if "knowledge_kl" in row] == [3, 5]


def test_the_least_is_the_first_step_and_the_last_and_its_cost_is_said(
    base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for steps, scored in ((1, [1]), (7, [1, 7])):
        caplog.clear()
        callback = knowshift.KnowledgeCallback(**CALLBACK | {"every": None, "budget": 0.0})
        run = trainer(base, tmp_path, callback, max_steps=steps)
        run.train()
        rows = [row for row in run.state.log_history if "knowledge_kl" in row]
        assert [score.step for score in callback.scores] == [row["step"] for row in rows] == scored
        (said,) = [record.getMessage() for record in caplog.records]
        assert f"and {len(scored)} scoring" in said and "more than the budget of 0%" in said and "\n" not in said
        took = float(said.removeprefix("the knowledge panel took ").partition(" s ")[0])
        # What is logged includes the scoring it is logged with, but for writing the row.
        assert took - 0.1 < rows[-1]["knowledge_seconds"] < took + 0.1


def test_a_text_is_watched_by_kl_alone(base: Path, tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    write_jsonl(file, ['{"prompt": "Question: What", "completion": " abc xyz"}', '{"prompt": "Q", "completion": " x"}'])
    callback = knowshift.KnowledgeCallback(text=file, every=4)
    run = trainer(base, tmp_path / "a", callback)
    run.train()
    rows = [row for row in run.state.log_history if "knowledge_kl" in row]
    assert [row["step"] for row in rows] == [4, 7] and all(row["knowledge_kl"] > 0 for row in rows)
    assert all(row["knowledge_panel"] == 2 and "knowledge_lost" not in row for row in rows)


def test_modes_and_random_states_come_back(base: Path) -> None:
    import random

    import numpy as np

    model = AutoModelForCausalLM.from_pretrained(base).train()
    model.model.layers[1].eval()  # what somebody froze by hand
    modes = [module.training for module in model.modules()]
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    with undisturbed(model):
        assert not any(module.training for module in model.modules()) and not torch.is_grad_enabled()
        torch.rand(3), random.random(), np.random.rand()
    assert [module.training for module in model.modules()] == modes and torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), states[0]) and random.getstate() == states[1]
    assert np.random.get_state()[1].tolist() == states[2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"facts": []}, "none are given"),
        ({"facts": [{"question": "?"}]}, r"facts\[0\].*answer"),
        ({"facts": taught.FACTS[-1:]}, "none of the 1 facts that were asked is known"),
        ({"form": "chat"}, "no chat template"),
        ({"split": "train"}, "none are given in split 'train'"),
        ({"facts": "no/such/file.jsonl"}, "no such facts file"),
    ],
)
def test_a_panel_that_cannot_be(base: Path, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    run = trainer(base, tmp_path, knowshift.KnowledgeCallback(**CALLBACK | options))
    with pytest.raises(InputError, match=message) as caught:
        run.train()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"facts": "world", "text": "x"}, "facts or text"),
        ({"form": "rhyme"}, "form 'rhyme' is unknown"),
        ({"size": 0}, "size must be at least 1"),
        ({"every": 0}, "every must be at least 1"),
        ({"budget": 2}, "budget is a share"),
        ({"max_lost": -0.1}, "max_lost is a share"),
        ({"max_kl": float("nan")}, "max_kl must be at least 0"),
        ({"stop": True, "max_lost": None}, "stop and keep need"),
        ({"text": "x", "keep": "k"}, "stop and keep need"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        knowshift.KnowledgeCallback(**options)


def test_a_folder_that_holds_something_else_is_not_kept_into(base: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds something else"):
        trainer(base, tmp_path, knowshift.KnowledgeCallback(**CALLBACK | {"max_lost": 1}, keep=base)).train()
    assert (base / "config.json").exists()


def test_an_adapter_is_kept_as_an_adapter(base: Path, tmp_path: Path) -> None:
    callback = knowshift.KnowledgeCallback(**CALLBACK | {"max_lost": 1.0}, keep=tmp_path / "kept")
    run = trainer(base, tmp_path / "a", callback, lora=True)
    run.train()
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "kept")
    now = run.model.state_dict()
    assert callback.kept_step == 7
    assert all(torch.equal(tensor, now[name]) for name, tensor in loaded.state_dict().items() if "lora" in name)
