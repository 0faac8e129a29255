"""Files of Jacobian lenses: what is read of published ones, and what is refused in one sentence."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from engine.errors import DamagedLensError, UsageError
from engine.models import jacobians
from engine.models.jacobians import Fitted, Jacobians, published
from store.backend.locate import place_of
from store.backend.records import hash_file

CPU, LAYERS, WIDTH = torch.device("cpu"), 4, 6


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def matrices(*blocks: int, width: int = WIDTH) -> dict[int, Tensor]:
    return {block: drawn(width, width).half() * (block + 1) for block in blocks}


def as_published(file: Path, content: dict[str, Any]) -> Path:
    torch.save({"n_prompts": 3, "source_layers": [0, 1, 2], "d_model": WIDTH} | content, file)
    return file


def test_a_published_lens_reads_the_output_of_each_block(tmp_path: Path) -> None:
    known = matrices(0, 1, 2)
    found = published(as_published(tmp_path / "lens.pt", {"J": known}), LAYERS, WIDTH, CPU)
    assert found.weight.dtype == torch.float32 and found.lacking == {0}
    hidden = drawn(2, 3, WIDTH)
    for block, matrix in known.items():
        expected = torch.einsum("ij,abj->abi", matrix.double(), hidden.double())
        torch.testing.assert_close(found.translate(hidden, block + 1), expected.float())
    assert torch.equal(found.translate(hidden, LAYERS), hidden)
    assert found.translate(hidden, 0).isnan().all()


@pytest.mark.parametrize("name", ["layer_{}", "J.{}", "blocks.{}", "{}"])
def test_matrices_by_name_in_a_file_of_safetensors_are_the_same(tmp_path: Path, name: str) -> None:
    known = matrices(0, 2)
    save_file({name.format(block): matrix for block, matrix in known.items()}, tmp_path / "a.safetensors")
    found = published(tmp_path / "a.safetensors", LAYERS, WIDTH, CPU)
    same = published(as_published(tmp_path / "a.pt", {"J": known}), LAYERS, WIDTH, CPU)
    torch.testing.assert_close(found.weight, same.weight, rtol=0, atol=0, equal_nan=True)
    assert found.lacking == same.lacking == {0, 2}


def test_a_fit_of_this_package_can_be_read_as_a_file(tmp_path: Path) -> None:
    home, fitted = (
        place_of(tmp_path / "key"),
        Fitted(drawn(LAYERS, WIDTH, WIDTH), drawn(4), torch.tensor([3, 9])),
    )
    assert jacobians.save(home, fitted) and not jacobians.save(home, fitted)
    found = published(tmp_path / "key" / jacobians.FILE, LAYERS, WIDTH, CPU)
    assert torch.equal(found.weight, fitted.weight) and not found.lacking


class Code:
    """What runs a command where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("way", ["torch", "pickle"])
def test_pickled_code_is_refused_and_not_run(tmp_path: Path, way: str) -> None:
    file, mark = tmp_path / "lens.pt", tmp_path / "ran"
    content = {"J": matrices(0, 1, 2), "metadata": Code(mark)}
    if way == "torch":
        torch.save(content, file)
    else:
        file.write_bytes(pickle.dumps(content))
    with pytest.raises(
        UsageError, match=r'probe\.jacobian\.path: ".*lens\.pt" cannot be read as tensors alone'
    ):
        published(file, LAYERS, WIDTH, CPU)
    assert not mark.exists()


def wrong_files(folder: Path) -> dict[str, tuple[Path, list[str]]]:
    """By what is wrong: a file, and what its message says."""
    torn = as_published(folder / "torn.pt", {"J": matrices(0)})
    torn.write_bytes(torn.read_bytes()[:300])
    (folder / "text.safetensors").write_text("no tensors")
    save_file({"weight": drawn(2, 2)}, folder / "named.safetensors")
    save_file({"jacobian": drawn(3, WIDTH, WIDTH)}, folder / "stack.safetensors")
    save_file({"layer_0": torch.ones(WIDTH, WIDTH, dtype=torch.int64)}, folder / "whole.safetensors")
    torch.save([1, 2], folder / "list.pt")
    sums = {"jacobian_sum": matrices(0), "n_done": 3}
    (folder / "empty.pt").write_bytes(b"")
    (folder / "folder.pt").mkdir()
    twice = {f"{name}.0": drawn(WIDTH, WIDTH) for name in ("attn", "mlp")}
    save_file(twice, folder / "twice.safetensors")
    both: dict[Any, Any] = matrices(0) | {"0": drawn(WIDTH, WIDTH)}  # type: ignore[operator]
    endless = {0: torch.full((WIDTH, WIDTH), torch.nan)}
    return {
        "torn": (torn, ["torn.pt", "cannot be read"]),
        "no safetensors": (folder / "text.safetensors", ["no whole file of safetensors"]),
        "names": (folder / "named.safetensors", ["holds weight", '"jacobian"']),
        "a stack of other layers": (folder / "stack.safetensors", ["(3, 6, 6)", "(4, 6, 6)"]),
        "whole numbers": (folder / "whole.safetensors", ["int64", "floating-point"]),
        "a list": (folder / "list.pt", ["a value of type list", '"J"']),
        "no bytes": (folder / "empty.pt", ["cannot be read as tensors alone;"]),
        "a folder": (folder / "folder.pt", ["cannot be read"]),
        "two of one block": (folder / "twice.safetensors", ["two matrices of block 0", "attn.0", "mlp.0"]),
        "two spellings": (as_published(folder / "both.pt", {"J": both}), ["two matrices of block 0"]),
        "no numbers": (as_published(folder / "nan.pt", {"J": endless}), ["block 0", "not finite"]),
        "a list of matrices": (
            as_published(folder / "listed.pt", {"J": [drawn(2, 2)]}),
            ['"J" of type list'],
        ),
        "no block": (as_published(folder / "minus.pt", {"J": {-1: drawn(2, 2)}}), ["-1: Tensor"]),
        "a checkpoint": (as_published(folder / "sum.pt", sums), ["jacobian_sum, n_done", '"J"']),
        "nothing": (as_published(folder / "none.pt", {"J": {}}), ["no matrix"]),
        "another width": (
            as_published(folder / "wide.pt", {"J": matrices(0, width=8)}),
            ["block 0", "(8, 8)", "(6, 6)"],
        ),
        "a deeper model": (
            as_published(folder / "deep.pt", {"J": matrices(0, 5)}),
            ["block 5", "blocks 0 to 2", "4"],
        ),
        "the last block": (as_published(folder / "last.pt", {"J": matrices(3)}), ["block 3", "0 to 2"]),
        "another target": (
            as_published(folder / "target.pt", {"J": matrices(0), "metadata": {"target_layer": 2}}),
            ["block 2", "block 3"],
        ),
    }


def test_a_wrong_file_is_told_in_one_sentence(tmp_path: Path) -> None:
    for what, (file, words) in wrong_files(tmp_path).items():
        with pytest.raises(UsageError) as caught, warnings.catch_warnings():
            warnings.simplefilter("error")
            published(file, LAYERS, WIDTH, CPU)
        message = str(caught.value)
        assert "\n" not in message and message.startswith("probe.jacobian.path: "), what
        assert all(word in message for word in words), f"{what}: {message}"


def test_what_was_saved_is_checked_against_its_record(tmp_path: Path) -> None:
    home, fitted = place_of(tmp_path / "key"), Fitted(drawn(2, 4, 4), drawn(2).double(), torch.tensor([3, 9]))
    assert jacobians.read(home, CPU) is None and jacobians.save(home, fitted)
    file = tmp_path / "key" / jacobians.FILE
    known = {file.name: {"bytes": file.stat().st_size, "blake2b": hash_file(file)}}
    assert torch.equal(jacobians.checked(home, CPU, known).weight, fitted.weight)
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(DamagedLensError, match="its content has changed"):
        jacobians.checked(home, CPU, known)
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(DamagedLensError, match="not a whole file"):
        jacobians.read(home, CPU)


def test_the_standard_error_and_norms_are_those_of_their_definitions() -> None:
    texts = drawn(5, 3, 4, 4).double()  # [texts, L, D, D]
    mean = texts.mean(dim=0)
    fitted = Fitted(mean.float(), texts.square().sum(dim=(0, 2, 3)), torch.tensor([5, 40]))
    apart = (texts - mean).square().sum(dim=(0, 2, 3)) / (5 * 4)
    torch.testing.assert_close(
        fitted.errors, (apart / mean.square().sum(dim=(1, 2))).sqrt(), rtol=1e-5, atol=0
    )
    torch.testing.assert_close(fitted.norms, torch.linalg.matrix_norm(mean) / 2, rtol=1e-6, atol=0)
    alone = Fitted(texts[0].float(), texts[0].square().sum(dim=(1, 2)), torch.tensor([1, 8]))
    assert alone.errors.isnan().all()
    eye = Jacobians(torch.eye(4).expand(3, 4, 4))
    assert Fitted(eye.weight, drawn(3), torch.tensor([2, 2])).norms.tolist() == [1, 1, 1]
