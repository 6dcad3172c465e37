"""The example beside a plain TRL script, run as its readers run it; and the callback where two processes train."""

import importlib.util
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import taught
import torch

import knowshift

ROOT = Path(__file__).parents[2]

SCRIPT = """
import json, sys
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer
import taught
from knowshift import KnowledgeCallback

base, folder, bound = sys.argv[1:]
callback = KnowledgeCallback(
    taught.FACTS, form="plain", every=1, max_lost=None, max_kl=float(bound), stop=True, keep=folder + "/kept"
)
trainer = SFTTrainer(
    AutoModelForCausalLM.from_pretrained(base),
    args=SFTConfig(folder, max_steps=8, per_device_train_batch_size=2, learning_rate=2e-3, use_cpu=True, bf16=False,
        lr_scheduler_type="constant", save_strategy="no", report_to="none", disable_tqdm=True),
    train_dataset=Dataset.from_list([{"prompt": f"Who is {n}?", "completion": f" abc {n} xyz"} for n in range(40)]),
    processing_class=AutoTokenizer.from_pretrained(base),
    callbacks=[callback],
)
trainer.train()
scores = [[score.step, score.kl, score.lost, score.weights] for score in callback.scores]
with open(f"{folder}/scores-{trainer.args.process_index}.json", "w") as file:
    json.dump({"step": trainer.state.global_step, "kept": callback.kept_step, "scores": scores}, file)
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return taught.taught(tmp_path_factory.mktemp("taught") / "model")


def test_the_example(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KNOWSHIFT_CACHE", str(tmp_path / "cache"))
    spec = importlib.util.spec_from_file_location("trl_callback", ROOT / "examples" / "trl_callback.py")
    assert spec is not None and spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    # A tiny model knows none of the world; the rest is the example's own.
    monkeypatch.setattr(example, "KnowledgeCallback", partial(knowshift.KnowledgeCallback, taught.FACTS, form="plain"))
    trainer = example.main([str(base), "--steps", "6"])
    rows = [row for row in trainer.state.log_history if "knowledge_kl" in row]
    assert rows[-1]["step"] == 6 and rows[-1]["knowledge_kl"] > 0
    plain = example.main([str(base), "--steps", "6", "--without"])
    assert not any("knowledge_kl" in row for row in plain.state.log_history)
    left, right = plain.model.state_dict(), trainer.model.state_dict()
    assert all(torch.equal(left[name], right[name]) for name in left)


def test_two_processes_score_alike_and_stop_together(base: Path, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    paths = os.pathsep.join([str(ROOT / "tests"), str(ROOT / "tests" / "train"), str(ROOT / "src")])
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, str(tmp_path / "script.py"), str(base), str(tmp_path), "0.05"],
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (json.loads((tmp_path / f"scores-{rank}.json").read_text()) for rank in (0, 1))
    assert first == second and 1 < first["step"] < 8
    assert first["kept"] == first["step"] - 1 and (tmp_path / "kept" / "model.safetensors").is_file()
    assert done.stderr.count("training stops here") == 1
