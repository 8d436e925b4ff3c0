"""What each client is asked, and how it says what came back."""

import json
import os

BASE, KEY, MODEL = os.environ["BASE"], os.environ["KEY"], "honshu.scripted"
SAY = "Reply with exactly: one two three"
CALL = 'Call the tool get_weather with {"city": "Osaka"}'


def say(**results):
    print(json.dumps(results))
