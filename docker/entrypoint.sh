#!/bin/sh
# mamba_vision TOOL [arguments]: runs tools/TOOL.py of the installed package; without a tool, lists them.
set -eu
tools=$(python -c 'from mamba_vision.utils.paths import project_folder; print(project_folder("tools"))')
case "${1:-}" in
  "" | -h | --help)
    echo "usage: mamba_vision TOOL [arguments], where TOOL is one of:"
    for file in "$tools"/*.py; do basename "$file" .py; done | sed 's/^/  /'
    exit 0 ;;
esac
if [ ! -f "$tools/$1.py" ]; then
  echo "mamba_vision: no tool '$1'; see mamba_vision --help" >&2
  exit 2
fi
tool=$1
shift
exec python "$tools/$tool.py" "$@"
