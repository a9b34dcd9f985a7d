"""Makes the pages at the repository's top pages of the site, and leads links between them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

_TOP = ("ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?![a-z]+:|#)([^)\s]+)\)")


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages that are not in docs/."""
    root = Path(config["config_file_path"]).parent
    for name in _TOP:
        content = (root / name).read_text(encoding="utf-8")
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Leads links from where a file is in the repository to where its page is on the site."""
    up = "../" * page.file.src_uri.count("/")

    def lead(found: re.Match[str]) -> str:
        words, target = found[1], found[2]
        path, _, anchor = target.partition("#")
        if page.file.src_uri in _TOP and path.startswith("docs/"):
            return f"[{words}]({path.removeprefix('docs/')}{anchor and '#' + anchor})"
        name = path.removeprefix("../" + up)
        if name in _TOP:
            return f"[{words}]({up}{name}{anchor and '#' + anchor})"
        if name == "README.md":
            return f"[{words}]({up}index.md)"
        # Code and settings are in the repository, not on the site.
        return found[0] if path.endswith(".md") else words

    return _LINK.sub(lead, markdown)
