"""Structure checks that compilers do not do. Prints each finding; exits 1 if there is one.

The rooms and what each may include stand in ROOMS, the one copy of docs/architecture.md's table that a program reads.
Every file is under the same length limit.
"""
import pathlib
import re
import subprocess
import sys

MAX_FILE_LINES = 600

# Room -> rooms whose headers it may include, besides itself and base.
ROOMS = {
    "base": "",
    "device": "",
    "tensor": "device",
    "graph": "tensor",
    "text": "",
    "model": "text graph tensor",
    "convert": "graph",
    "kernels": "tensor device",
    "kv": "tensor device",
    "wire": "tensor device",
    "transport": "tensor device",
    "plan": "convert model kv",
    "exec": "convert model kernels tensor device graph",
    "control": "wire transport",
    "worker": "exec kernels kv wire transport plan convert model tensor device graph",
    "scheduler": "plan model kv",
    "simulate": "scheduler worker exec kernels kv wire transport plan model tensor device",
    "planner": "simulate scheduler worker exec kernels kv wire transport plan model graph tensor device",
    "engine": "scheduler worker control plan convert model text kv wire transport",
    "server": "engine scheduler model text",
    "app": "*",
}
# Rooms for which kv is accounting only: they may not see the bytes.
KV_ACCOUNTING_ONLY = {"plan", "scheduler", "engine"}
KV_BYTES = {"kv/kv_cache.h"}

# Third-party header prefix -> rooms that may include it.
THIRD_PARTY = {
    r"grpc": {"control"},
    r"google/protobuf": {"control", "text"},
    r"boost/(beast|asio|system)": {"server"},
    r"boost/graph|boost/pending|boost/property_map": {"convert"},
    r"prometheus/": {"server"},
    r"pcre2": {"text"},
    r"utf8proc": {"text"},
    r"hwy/": {"kernels"},
    r"hwloc": {"device"},
    r"CLI/": {"app"},
    r"yaml-cpp/": {"app", "planner"},
    r"spdlog/": {"base"},
}
CUDA = re.compile(r"(cuda|cublas|cub/|nccl|mma\.h)")  # in folders named for it
JSON = re.compile(r"nlohmann/json\.hpp")


def tracked(*patterns):
    out = subprocess.run(["git", "ls-files", "-z", *patterns], check=True, capture_output=True).stdout
    return [pathlib.Path(name) for name in out.decode().split("\0") if name]


def room_of(path):
    return path.parts[1] if path.parts[0] == "src" and len(path.parts) > 2 else None


def check_includes(path, text, findings):
    room = room_of(path)
    if room is None:
        return
    if room not in ROOMS:
        findings.append(f"{path}: room '{room}' is not in scripts/lib/check.py")
        return
    allowed = set(ROOMS[room].split()) | {room, "base"}
    is_test = path.name.endswith("_test.cc") or "fake" in path.name
    for number, line in enumerate(text.splitlines(), 1):
        quoted = re.match(r'\s*#include "([^"]+)"', line)
        if quoted:
            target = quoted.group(1)
            top = target.split("/")[0]
            if top in ROOMS and "*" not in allowed and top not in allowed and not is_test:
                findings.append(f"{path}:{number}: {room} may not include {target}")
            if target in KV_BYTES and room in KV_ACCOUNTING_ONLY and not is_test:
                findings.append(f"{path}:{number}: {room} sees KV accounting only, not {target}")
            if ".." in target:
                findings.append(f"{path}:{number}: include from src/, not relatively")
        angled = re.match(r"\s*#include <([^>]+)>", line)
        if angled and not is_test:
            for pattern, rooms in THIRD_PARTY.items():
                if re.match(pattern, angled.group(1)) and room not in rooms:
                    findings.append(f"{path}:{number}: {angled.group(1)} belongs to {', '.join(sorted(rooms))}")
            if CUDA.match(angled.group(1)) and not any(part.startswith(("cuda", "nccl", "rdma")) for part in path.parts[:-1]):
                findings.append(f"{path}:{number}: {angled.group(1)} belongs to folders named cuda, nccl or rdma")
            if JSON.match(angled.group(1)) and path.suffix == ".h" and not path.name.endswith("_json.h"):
                findings.append(f"{path}:{number}: JSON in .cc files only")


def check_shape(path, text, findings):
    lines = text.splitlines()
    if len(lines) > MAX_FILE_LINES:
        findings.append(f"{path}: {len(lines)} lines, split it (limit {MAX_FILE_LINES})")
    if path.suffix == ".h":
        if not text.startswith("//"):
            findings.append(f"{path}: a header opens with a comment that says what it is")
        # Highway compiles "-inl.h" files once per instruction set, with a guard of its own.
        if "#pragma once" not in text and not path.name.endswith("-inl.h"):
            findings.append(f"{path}: no #pragma once")
        if re.search(r"^using namespace", text, re.M):
            findings.append(f"{path}: using namespace in a header")
    for number, line in enumerate(lines, 1):
        if re.search(r"\b(TODO|FIXME|XXX|HACK)\b(?!\(#\d+\))", line):
            findings.append(f"{path}:{number}: TODO without an issue: write TODO(#issue)")


def check_links(path, text, findings):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if "://" in target or target.startswith("mailto:"):
            continue
        if not (path.parent / target).exists():
            findings.append(f"{path}: link to {target}, which is not there")


def check_shown_files(path, text, findings):
    """A document that shows a whole file shows it as it is."""
    for shown, code in re.findall(r"<!-- file: (\S+) -->\n```\w*\n(.*?)```", text, re.S):
        file = pathlib.Path(shown)
        if not file.exists():
            findings.append(f"{path}: shows {shown}, which is not there")
        elif file.read_text() != code:
            findings.append(f"{path}: shows {shown} otherwise than it is")


def check_adr_numbers(findings):
    seen = {}
    for path in tracked("docs/adr/*.md"):
        number = path.name[:4]
        if number in seen:
            findings.append(f"{path}: the number is taken by {seen[number]}")
        seen[number] = path


def main():
    findings = []
    for path in tracked("*.h", "*.cc", "*.cu", "*.cuh"):
        if not path.exists():
            continue
        text = path.read_text()
        check_includes(path, text, findings)
        check_shape(path, text, findings)
    for path in tracked("*.md"):
        if path.exists():
            check_shown_files(path, path.read_text(), findings)
            check_links(path, path.read_text(), findings)
    check_adr_numbers(findings)
    for finding in findings:
        print(finding)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
