"""Answers, for each line of JSON text on stdin, what oci-lexer-parser makes of it.

One line of JSON a statement: {"ok": true, "statement": {...}} or {"ok": false, "error": "..."}.
"""

import json
import sys

from oci_lexer_parser import parse_policy_statements

for line in sys.stdin:
    text = json.loads(line)
    try:
        statements = parse_policy_statements(text)["statements"]
        if len(statements) == 1:
            answer = {"ok": True, "statement": statements[0]}
        else:
            answer = {"ok": False, "error": f"{len(statements)} statements"}
    except Exception as error:  # Whatever it raises means that it refuses the text.
        answer = {"ok": False, "error": str(error)}
    print(json.dumps(answer), flush=True)
