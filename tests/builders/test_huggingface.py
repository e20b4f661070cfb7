"""The Hugging Face builder, on directories of transformers itself and on hostile copies."""

from __future__ import annotations

import json
import pickle
import shutil
import struct
import subprocess
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from tokenizers import Tokenizer

from edgectl.build import toolchain
from edgectl.build.builder import find_builder
from edgectl.engine.transforms.text import Tokenize
from edgectl.errors import ModelError
from tests.builders.refusals import refused_import
from tests.support.builders import MANIFESTS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgectl.build.runner import Result
    from tests.builders.conftest import Build

pytestmark = pytest.mark.slow  # making the toolchains takes minutes, once

MAKER = dedent("""
    import torch
    import transformers as hf

    torch.manual_seed(0)
    SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
             "intermediate_size": 64}
    TEXT = SIZES | {"vocab_size": 100, "max_position_embeddings": 40, "num_labels": 4}
    bert = hf.BertForSequenceClassification(hf.BertConfig(**TEXT))
    bert.save_pretrained("bert")
    bert.save_pretrained("sharded", max_shard_size="20KB")
    bert.half().save_pretrained("half")
    hf.BertModel(hf.BertConfig(**TEXT)).save_pretrained("encoder")
    hf.BertForTokenClassification(hf.BertConfig(**TEXT)).save_pretrained("tagger")
    roberta = hf.RobertaConfig(**TEXT, pad_token_id=1)
    hf.RobertaForSequenceClassification(roberta).save_pretrained("roberta")
    gpt = hf.GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=100, n_positions=40,
                        num_labels=4, pad_token_id=0)
    hf.GPT2ForSequenceClassification(gpt).save_pretrained("gpt2")
    vit = hf.ViTConfig(**SIZES, image_size=32, patch_size=8, num_labels=5)
    hf.ViTForImageClassification(vit).save_pretrained("vit")
    mobilenet = hf.MobileNetV2Config(depth_multiplier=0.35, image_size=32, num_labels=5)
    hf.MobileNetV2ForImageClassification(mobilenet).save_pretrained("mobilenet")
    resnet = hf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=5)
    hf.ResNetForImageClassification(resnet).save_pretrained("resnet")
""")
RUNNER = dedent("""
    import sys
    import numpy as np
    import torch
    import transformers as hf

    folder, rows, out = sys.argv[1:]
    tokens = torch.from_numpy(np.load(rows))
    model = hf.AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        states = model(tokens, attention_mask=(tokens != 0).long()).last_hidden_state
    means = [row[ids != 0].mean(0) for row, ids in zip(states, tokens)]
    np.save(out, torch.stack([mean / mean.norm() for mean in means]).numpy())
""")


def tensor(name: str, *shape: int, datatype: str = "FP32") -> list[dict[str, Any]]:
    return [{"name": name, "datatype": datatype, "shape": list(shape)}]


def tokens(*shape: int, datatype: str = "INT64") -> list[dict[str, Any]]:
    return tensor("input_ids", *shape, datatype=datatype)


TEXT = {"inputs": tokens(-1, 16), "outputs": tensor("logits", -1, 4)}
INTENTS = {"inputs": tokens(-1, 24), "outputs": tensor("logits", -1, 15)}
CALIBRATION, EVALUATION, GOLDEN = (
    MANIFESTS / "data" / "intents" / "1.0.0" / f"{name}.npz"
    for name in ("calibration", "evaluation", "golden")
)
PICTURE = {"inputs": tensor("pixels", -1, 3, 32, 32), "outputs": tensor("logits", -1, 5)}


@pytest.fixture(scope="module")
def python() -> Path:
    return toolchain.prepare(find_builder("huggingface"))


@pytest.fixture(scope="module")
def made(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small random models of several architectures, by the toolchain's own transformers."""
    folder = tmp_path_factory.mktemp("directories")
    subprocess.run([str(python), "-W", "ignore", "-c", MAKER], cwd=folder, check=True)
    return folder


def imported(build: Build, source: Path, **params: Any) -> Result:
    return build("huggingface", "import", {"source": source}, params)


def refusal(build: Build, source: Path, **params: Any) -> ModelError:
    return refused_import(build, "huggingface", source, TEXT | params)


@pytest.mark.parametrize(
    ("name", "kind", "params"),
    [
        ("bert", "text-classification", TEXT),
        ("bert", "text-classification",
         {"inputs": tokens(1, 12, datatype="INT32"), "outputs": tensor("logits", 1, 4)}),
        ("bert", "text-classification", TEXT | {"inputs": tokens(-1, -1)}),
        ("sharded", "text-classification", TEXT),
        ("half", "text-classification", TEXT),
        ("roberta", "text-classification", TEXT),
        ("gpt2", "text-classification", TEXT),
        ("encoder", "embedding", TEXT | {"outputs": tensor("embedding", -1, 32)}),
        ("vit", "image-classification", PICTURE),
        ("mobilenet", "image-classification", PICTURE),
        ("resnet", "image-classification", PICTURE),
    ],
    ids=["bert", "static", "free-length", "sharded", "half", "roberta", "causal", "embedding",
         "vit", "mobilenet", "resnet"],
)  # fmt: skip
def test_a_model_is_imported_with_one_tensor_in_and_one_out(
    build: Build, made: Path, name: str, kind: str, params: dict[str, Any]
) -> None:
    result = imported(build, made / name, **params)
    assert result.metadata["kind"] == kind
    assert result.metadata["agreement"]["maxDifference"] < 1e-4
    model = onnx.load(result.outputs["model"])
    onnx.checker.check_model(model, full_check=True)
    values = (*model.graph.input, *model.graph.output)
    declared = (*params["inputs"], *params["outputs"])
    assert [value.name for value in values] == [spec["name"] for spec in declared]
    for value, spec in zip(values, declared, strict=True):
        assert [d.dim_value or -1 for d in value.type.tensor_type.shape.dim] == spec["shape"]


@pytest.mark.parametrize(("name", "params"), [("bert", TEXT), ("resnet", PICTURE)])
def test_the_same_directory_gives_the_same_bytes(
    build: Build, made: Path, name: str, params: dict[str, Any]
) -> None:
    first, second = (
        imported(build, made / name, **params).outputs["model"].read_bytes() for _ in range(2)
    )
    assert first == second
    assert str(made).encode() not in first


def test_an_embedding_is_the_mean_of_what_is_no_padding_at_length_one(
    build: Build, made: Path, python: Path, tmp_path: Path
) -> None:
    """Against transformers, row by row without a mask in the arithmetic."""
    rows = np.random.default_rng(0).integers(1, 100, (6, 16))
    for place, row in enumerate(rows):
        row[4 + 2 * place :] = 0
    np.savez(tmp_path / "evaluation.npz", input_ids=rows)
    np.save(tmp_path / "rows.npy", rows)
    command = [str(python), "-W", "ignore", "-c", RUNNER, str(made / "encoder")]
    files = [str(tmp_path / "rows.npy"), str(tmp_path / "expected.npy")]
    subprocess.run([*command, *files], check=True)
    result = build(
        "huggingface",
        "import",
        {"source": made / "encoder", "evaluation": tmp_path / "evaluation.npz"},
        {"inputs": tokens(-1, 16), "outputs": tensor("embedding", -1, 32)},
    )
    assert result.metadata["agreement"]["data"] == "evaluation"

    import onnxruntime

    session = onnxruntime.InferenceSession(
        result.outputs["model"], providers=["CPUExecutionProvider"]
    )
    (actual,) = session.run(None, {"input_ids": rows})
    np.testing.assert_allclose(actual, np.load(tmp_path / "expected.npy"), atol=1e-5)


def test_the_mask_is_plain_arithmetic_where_the_architecture_takes_it(
    build: Build, made: Path
) -> None:
    operators = imported(build, made / "bert", **TEXT).metadata["operators"]
    assert not {"GatherND", "Range", "Where"} & set(operators)


@pytest.fixture(scope="module")
def intents(build: Build) -> Path:
    """The recipe's model, imported."""
    roles = {"source": MANIFESTS / "models" / "intents-1.0.0", "evaluation": EVALUATION}
    result = build("huggingface", "import", roles, INTENTS)
    assert result.metadata["agreement"]["data"] == "evaluation"
    return result.outputs["model"]


def test_the_shipped_intents_model_is_imported_on_its_own_data(intents: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(intents, providers=["CPUExecutionProvider"])
    with np.load(GOLDEN) as golden:
        (logits,) = session.run(None, {"input_ids": golden["input_ids"]})
        np.testing.assert_allclose(logits, golden["logits"], atol=1e-3)


def test_the_shipped_intents_model_in_int8_for_arm_is_evaluated_on_any_host(
    build: Build, intents: Path
) -> None:
    """ONNX Runtime on x86 does not load it with the arithmetic of an Arm's kernels."""
    quantization = {"activations": "int8", "weights": "int8", "perChannel": True}
    small = build(
        "onnx",
        "optimize",
        {"model": intents, "calibration": CALIBRATION},
        INTENTS | quantization | {"precision": "int8", "engine": "onnxruntime"},
    ).outputs["model"]
    measured = build(
        "onnx",
        "evaluate",
        {"model": small, "evaluation": EVALUATION, "golden": GOLDEN},
        {"task": "classification", "labels": "label", "outputs": INTENTS["outputs"],
         "latency": False, "architecture": "arm64",
         "goldenTolerance": {"absolute": 0.5, "relative": 0.1, "top1": 1.0}},
    ).metadata  # fmt: skip
    assert measured["metrics"]["accuracy"] > 0.82
    assert not measured["golden"]["problems"]


def test_the_shipped_tokenizer_makes_tokens_of_a_text() -> None:
    """By edgectl's own tokenisation with the tokenizer that ships."""
    folder = MANIFESTS / "models" / "intents-1.0.0"
    step = Tokenize(vocabulary="tokenizer.json", length=24)
    made = step.apply(b"Please turn on the lights", folder)
    names = Tokenizer.from_file(str(folder / "tokenizer.json"))
    known = [names.id_to_token(int(token)) for token in made]
    assert known[:7] == ["[CLS]", "please", "turn", "on", "the", "lights", "[SEP]"]
    assert set(known[7:]) == {"[PAD]"}


def copied(source: Path, target: Path, **config: Any) -> Path:
    shutil.copytree(source, target)
    value = json.loads((target / "config.json").read_text()) | config
    (target / "config.json").write_text(json.dumps(value))
    return target


def lose_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def cut_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def swell_header(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(struct.pack("<Q", 1 << 60) + path.read_bytes()[8:])


def ruin_weight(folder: Path) -> None:
    """NaN in the last tensor of the file."""
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + struct.pack("<f", float("nan")))


def break_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def lose_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def link_outside(folder: Path) -> None:
    (folder / "vocab.txt").symlink_to("/etc/hostname")


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lose_weights, "the directory has no model.safetensors"),
        (cut_weights, "model.safetensors is not readable"),
        (swell_header, "model.safetensors is not readable"),
        (ruin_weight, "are NaN or infinite"),
        (break_config, "config.json is not readable"),
        (lose_config, "the directory has no config.json"),
        (link_outside, "vocab.txt is a link that leads outside"),
    ],
)
def test_a_damaged_directory_is_refused(
    build: Build, made: Path, tmp_path: Path, harm: Callable[[Path], None], said: str
) -> None:
    folder = copied(made / "bert", tmp_path / "model")
    harm(folder)
    assert said in refusal(build, folder).message


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"architectures": ["MartianForSequenceClassification"]},
         "architecture 'MartianForSequenceClassification' is none for"),
        ({"architectures": None}, "config.json names None in `architectures`"),
        ({"vocab_size": 1 << 40}, "vocab_size is 1099511627776, more than"),
        ({"num_hidden_layers": 100_000}, "num_hidden_layers is 100000, more than 512"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantised by a library of their own"),
        ({"pad_token_id": None}, "config.json has no pad_token_id"),
        ({"num_hidden_layers": 3}, "weights are missing or of another shape"),
        ({"hidden_size": 64}, "does not load it"),
    ],
    ids=["unknown", "none", "huge", "deep", "quantised", "padding", "missing", "mismatched"],
)  # fmt: skip
def test_a_config_that_does_not_fit_is_refused(
    build: Build, made: Path, tmp_path: Path, config: dict[str, Any], said: str
) -> None:
    folder = copied(made / "bert", tmp_path / "model", **config)
    assert said in refusal(build, folder).message


def test_an_architecture_for_another_task_is_refused_by_name(build: Build, made: Path) -> None:
    error = refusal(build, made / "tagger")
    assert "architecture 'BertForTokenClassification' is none for" in error.message
    assert "torch.export.save" in str(error.hint)


def test_pickled_weights_are_refused_unread(build: Build, made: Path, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (open, (str(tmp_path / "exploded"), "w"))

    folder = copied(made / "bert", tmp_path / "model")
    lose_weights(folder)
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    error = refusal(build, folder)
    assert "the weights are in 'pytorch_model.bin'" in error.message
    assert "save_pretrained" in str(error.hint)
    assert not (tmp_path / "exploded").exists()


def with_own_code(made: Path, folder: Path) -> Path:
    """A directory whose config points at Python in it."""
    code = f"""
        from transformers import BertForSequenceClassification

        open({str(folder / "ran")!r}, "w").close()


        class Mine(BertForSequenceClassification):
            pass
    """
    target = copied(
        made / "bert",
        folder / "model",
        architectures=["MineForSequenceClassification"],
        auto_map={"AutoModelForSequenceClassification": "mine.Mine"},
    )
    (target / "mine.py").write_text(dedent(code))
    return target


def test_code_in_the_directory_runs_only_when_it_is_trusted(
    build: Build, made: Path, tmp_path: Path
) -> None:
    folder = with_own_code(made, tmp_path)
    assert "set source.trustCode: true" in refusal(build, folder).message
    assert not (tmp_path / "ran").exists()
    trusted = imported(build, folder, **TEXT, trustCode=True)
    assert (tmp_path / "ran").exists()
    assert trusted.metadata["trustedCode"] is True


def test_an_index_may_name_only_safetensors_of_its_directory(
    build: Build, made: Path, tmp_path: Path
) -> None:
    folder = copied(made / "sharded", tmp_path / "model")
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    index["weight_map"]["classifier.bias"] = "../../etc/passwd"
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "it names '../../etc/passwd'" in refusal(build, folder).message


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"outputs": tensor("logits", -1, 7)}, "'logits' is float32 [-1, 4] in the model"),
        ({"inputs": tokens(-1, 16) + tensor("attention_mask", -1, 16)}, "declares 2"),
        ({"inputs": tokens(-1, 50)}, "50"),
    ],
    ids=["classes", "mask", "too-long"],
)
def test_a_signature_that_differs_is_refused(
    build: Build, made: Path, params: dict[str, Any], said: str
) -> None:
    assert said in refusal(build, made / "bert", **params).message


def test_tokens_beyond_the_vocabulary_are_refused(build: Build, made: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "evaluation.npz", input_ids=np.full((4, 16), 5000))
    inputs = {"source": made / "bert", "evaluation": tmp_path / "evaluation.npz"}
    with pytest.raises(ModelError, match="fails on evaluation data"):
        build("huggingface", "import", inputs, TEXT)
