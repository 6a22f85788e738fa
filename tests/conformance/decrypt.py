"""Opens encrypted parameters with the function that the documentation shows.

    decrypt.py docs/webhooks.md TOKEN < PAIRS.json

PAIRS is a list of [name, value]. Writes the plain values as a JSON list. A value under another name or
with another token must not open.
"""

import json
import sys

text = open(sys.argv[1], encoding="utf-8").read()
code = next(block for block in text.split("```") if block.startswith("python") and "def decrypt" in block)
exec(code.removeprefix("python"))


def opens(token, name, value):
    try:
        decrypt(token, name, value)
    except Exception:
        return False
    return True


plain = []
for name, value in json.load(sys.stdin):
    plain.append(decrypt(sys.argv[2], name, value))
    assert not opens(sys.argv[2] + "x", name, value), name
    assert not opens(sys.argv[2], name + "x", value), name
print(json.dumps(plain))
