"""MkDocs hook: the pages beside code and configs belong to the site, and links between them and docs/ hold in both.

In the repository a page of docs/ links to ../../configs/vim/README.md; the site has that page at configs/vim/README.md
beside the pages of docs/, and the configs themselves as files. So only the way up is shortened.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
# What pages link to: pages and configs, and code, which the site has as plain files.
FOLDERS = ("configs", "kernels", "mamba_vision", "tools", "data")
SHOWN = ("README.md", "metafile.yml")
LINK = re.compile(r"(?<=\]\()([^)\s#:]+)(?=[)#])")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and files outside docs/."""
    found = [file for folder in FOLDERS for file in sorted((ROOT / folder).rglob("*"))]
    shown = [file for file in found if file.name in SHOWN or file.suffix == ".py"]
    for file in [*shown, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md"]:
        files.append(File.generated(config, file.relative_to(ROOT).as_posix(), abs_src_path=str(file)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links at where the site has their targets."""
    source = page.file.src_uri
    inside = (ROOT / "docs" / source).is_file()
    folder = posixpath.dirname(f"docs/{source}" if inside else source)

    def placed(link: re.Match) -> str:
        in_repository = posixpath.normpath(posixpath.join(folder, link[0]))
        if (ROOT / in_repository).is_dir():  # a folder is shown by its page
            in_repository = posixpath.join(in_repository, "README.md")
        target = in_repository.removeprefix("docs/")
        if target not in files.src_uris:
            return link[0]
        return posixpath.relpath(target, posixpath.dirname(source) or ".")

    return LINK.sub(placed, markdown)
