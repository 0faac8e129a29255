"""Publishing an adapter: a folder in peft's format with a model card, or a repository of the hub."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from engine.errors import EngineError, UsageError
from engine.publishing.card import model_card
from engine.publishing.facts import PublishedCell, public_name
from engine.stages.training.files import ADAPTER

FILES = ("adapter_config.json", "adapter_model.safetensors")  # as peft reads them
CARD = "README.md"


def to_folder(published: PublishedCell, folder: Path, base: str | None = None) -> Path:
    """Write an adapter and its card to a folder that is empty or not there.

    Args:
        published: the adapter and what is known of it.
        folder: peft loads the adapter by it.
        base: the base model as others can load it; by default the spec's.

    Raises:
        UsageError: for a folder that holds something.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"publish -o: {folder} holds something; expected an empty folder, or a new one")
    folder.mkdir(parents=True, exist_ok=True)
    _write(published, folder, base, str(folder), local=True)
    return folder


def to_hub(
    published: PublishedCell, repository: str, base: str | None = None, *, public: bool = False
) -> str:
    """Upload an adapter and its card to a repository of the hub, made where it is new; give its address.

    Args:
        published: the adapter and what is known of it.
        repository: OWNER/NAME.
        base: the base model as others can load it; by default the spec's.
        public: whether everybody may see a repository that is made for this.

    Raises:
        EngineError: where the hub refuses, or is out of reach.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError

    hub = HfApi()
    with tempfile.TemporaryDirectory() as scratch:
        _write(published, Path(scratch), base, repository, local=False)
        try:
            made = hub.create_repo(repository, private=not public, exist_ok=True)
            hub.upload_folder(
                repo_id=made.repo_id, folder_path=scratch, commit_message=f"Add {published.title}"[:72]
            )
        except HFValidationError as error:
            raise UsageError(f'publish --repo: found "{repository}"; expected OWNER/NAME: {error}') from error
        except Exception as error:  # of the hub's library, or of whichever HTTP library it has
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise EngineError(
                f"publish --to hub: {repository} was not written: {reason}; expected access to the hub, by "
                "`hf auth login` or HF_TOKEN, with the right to write"
            ) from error
    return str(made)


def _write(published: PublishedCell, folder: Path, base: str | None, name: str, *, local: bool) -> None:
    """Write the files; the base model is named as others can load it, unless only this machine is to."""
    settings = published.matrix.table("model", published.cell)
    named = base or (settings.id if local else public_name(settings.id))
    source = published.home.local(ADAPTER)
    for file in FILES:
        shutil.copyfile(source / file, folder / file)
    config = json.loads((folder / FILES[0]).read_text("utf-8"))
    config |= {"base_model_name_or_path": named, "revision": settings.revision if base is None else None}
    (folder / FILES[0]).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")
    (folder / CARD).write_text(model_card(published, named, name), "utf-8")
