"""Prints the text of a chat completion stream (server-sent events on standard input) as it arrives."""
import json
import sys

for line in sys.stdin:
    if not line.startswith("data: ") or line.strip() == "data: [DONE]":
        continue
    event = json.loads(line[len("data: "):])
    if "error" in event:
        sys.exit(event["error"]["message"])
    for choice in event["choices"]:
        print(choice["delta"].get("content") or "", end="", flush=True)
print()
